"""A quantized network as plain tensors: integers, scales and zero points by name, for readers of one's own.

Of a layer NAME: `NAME.weight` the integers, `NAME.weight_scale` and `NAME.weight_zero_point` ([] or one a channel of
axis 0), `NAME.weight_bits`; `NAME.input_scale`, `NAME.input_zero_point`, `NAME.input_bits`, `NAME.input_quant_min` and
`NAME.input_quant_max`, between which q is clipped; x ~ (q - zero_point) * scale. All else has its own name. Before a
file is given out it is read again, and a network of what it has, and nothing else, answers the test images.
"""

from __future__ import annotations

import copy
import io
from collections import OrderedDict

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import by_channel, fake_quantize
from suite.formats.onnx_graph import stored
from suite.integers.levels import integers_of, levels_of
from suite.quantizers.layers import LAYERS, Quantized
from suite.quantizers.quantizer import Quantizer

ENDS = ("quant_min", "quant_max")


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Of a network of which all is on grids; on the CPU, contiguous."""
    found: dict[str, Tensor] = {}
    replaced: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, Quantizer):
            levels = levels_of(module)
            found[f"{_of_input(name)}_scale"] = levels.scale
            for part in ("zero_point", *ENDS, "bits"):
                found[f"{_of_input(name)}_{part}"] = torch.tensor(getattr(levels, part), dtype=torch.int32)
            replaced |= {f"{name}.{own}" for own in module.state_dict()}
        elif isinstance(module, LAYERS) and (weight := integers_of(module)) is not None:
            plain = name.removesuffix(".layer")
            q, zero_point = stored(weight)
            found |= {f"{plain}.weight": q, f"{plain}.weight_scale": weight.scale}
            found[f"{plain}.weight_zero_point"] = zero_point
            found[f"{plain}.weight_bits"] = torch.tensor(weight.bits, dtype=torch.int32)
            replaced.add(f"{name}.weight")
    own = _own_names(model)
    found |= {own[name]: tensor for name, tensor in model.state_dict().items() if name not in replaced}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


def _of_input(quantizer: str) -> str:
    return quantizer if quantizer.endswith(".input") else f"{quantizer}.input"


def _own_names(model: nn.Module) -> dict[str, str]:
    """Of each tensor in the state of `model` its name in the float network."""
    held = {name for name, module in model.named_modules() if isinstance(module, Quantized)}
    found = {}
    for name in model.state_dict():
        owner, _, own = name.rpartition(".")
        holder = owner.removesuffix(".layer")
        found[name] = f"{holder}.{own}" if holder in held else name
    return found


def state_dict_file(model: nn.Module, about: dict[str, str]) -> tuple[bytes, nn.Module]:
    """torch.save of them, for torch.load(weights_only=True), `about` in what PyTorch keeps beside a state_dict, its
    `_metadata` under the name of the whole network, "", and the network that is read from it."""
    stream, state = io.BytesIO(), OrderedDict(tensors_of(model))
    state._metadata = OrderedDict({"": dict(about)})  # type: ignore[attr-defined]
    torch.save(state, stream)
    content = stream.getvalue()
    return content, read_into(model, torch.load(io.BytesIO(content), weights_only=True))


def safetensors_file(model: nn.Module, about: dict[str, str]) -> tuple[bytes, nn.Module]:
    """In the safetensors format, `about` among its metadata, and the network that is read from it."""
    from safetensors.torch import load, save

    content = bytes(save(tensors_of(model), about))
    return content, read_into(model, load(content))


class RoundedInput(nn.Module):
    """A tensor rounded as a file says, by nothing else: the reader that a file needs."""

    def __init__(self, tensors: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.scale = tensors[f"{name}_scale"].clone()
        zero, self.quant_min, self.quant_max = (
            int(tensors[f"{name}_{one}"]) for one in ("zero_point", *ENDS)
        )
        self.zero_point = torch.tensor(float(zero)) if zero else None

    def forward(self, x: Tensor) -> Tensor:
        """float32, of the shape of `x`."""
        return fake_quantize(x, self.scale, self.zero_point, self.quant_min, self.quant_max)


@torch.no_grad()
def read_into(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The network of `model`'s form with what `tensors` say and none of its own values: weights and inputs by
    integers, scales, zero points and ends of grids, and all else by its own name. What they lack is NaN."""
    own = _own_names(model)
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, Quantized):
            held = nn.Sequential()
            if module.input is not None:
                held.add_module("input", RoundedInput(tensors, _of_input(f"{name}.input")))
            held.add_module("layer", module.layer)
            model.set_submodule(name, held)
    for name, module in list(model.named_modules()):
        if isinstance(module, Quantizer):
            model.set_submodule(name, RoundedInput(tensors, _of_input(name)))
    for name, tensor in model.state_dict().items():
        plain = own[name]
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
        if f"{plain}_scale" in tensors:
            q, zero, scale = (tensors[f"{plain}{part}"] for part in ("", "_zero_point", "_scale"))
            zero, scale = (by_channel(one, q, 0) for one in (zero, scale))
            tensor.copy_((q.int() - zero.int()) * scale)
        elif plain in tensors:
            tensor.copy_(tensors[plain])
    return model
