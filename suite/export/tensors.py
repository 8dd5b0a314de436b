"""A quantized network as plain tensors: integers, scales and zero points by name, for readers of one's own.

Of a layer NAME: `NAME.weight` the integers, `NAME.weight_scale` and `NAME.weight_zero_point` ([] or one a channel of
axis 0), `NAME.input_scale` and `NAME.input_zero_point`; x ~ (q - zero_point) * scale. All else has its own name.
Before a file is given out it is read again, and a network of its weights answers the test images.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from torch import Tensor, nn

from suite.export.levels import integers_of, levels_of
from suite.export.onnx_graph import stored
from suite.quantizers.layers import LAYERS, Quantized
from suite.quantizers.quantizer import Quantizer


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Of a network of which all is on grids; on the CPU, contiguous."""
    found: dict[str, Tensor] = {}
    replaced: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, Quantizer):
            levels = levels_of(module)
            found[f"{_of_input(name)}_scale"] = levels.scale
            found[f"{_of_input(name)}_zero_point"] = torch.tensor(levels.zero_point, dtype=torch.int32)
            replaced |= {f"{name}.{own}" for own in module.state_dict()}
        elif isinstance(module, LAYERS) and (weight := integers_of(module)) is not None:
            plain = name.removesuffix(".layer")
            q, zero_point = stored(weight)
            found |= {f"{plain}.weight": q, f"{plain}.weight_scale": weight.scale}
            found[f"{plain}.weight_zero_point"] = zero_point
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


def state_dict_file(model: nn.Module) -> tuple[bytes, nn.Module]:
    """torch.save of them, for torch.load(weights_only=True), and the network that is read from it."""
    stream = io.BytesIO()
    torch.save(tensors_of(model), stream)
    content = stream.getvalue()
    return content, read_into(model, torch.load(io.BytesIO(content), weights_only=True))


def safetensors_file(model: nn.Module, about: dict[str, str]) -> tuple[bytes, nn.Module]:
    """In the safetensors format, `about` among its metadata, and the network that is read from it."""
    from safetensors.torch import load, save

    content = bytes(save(tensors_of(model), about))
    return content, read_into(model, load(content))


@torch.no_grad()
def read_into(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A copy of `model` with what `tensors` say: weights and ranges of inputs by integers, scales and zero points, and
    all else by its own name."""
    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        plain = name.removesuffix(".layer")
        parts: Any = module
        if isinstance(module, Quantizer):
            parts.scale.fill_(tensors[f"{_of_input(name)}_scale"])
            parts.zero_point.fill_(tensors[f"{_of_input(name)}_zero_point"])
        elif isinstance(module, LAYERS) and f"{plain}.weight_scale" in tensors:
            q, zero, scale = (tensors[f"{plain}.weight{part}"] for part in ("", "_zero_point", "_scale"))
            zero, scale = (
                one.reshape([-1, *[1] * (q.dim() - 1)] if one.dim() else []) for one in (zero, scale)
            )
            parts.weight.copy_((q.int() - zero.int()) * scale)
    own, state = _own_names(model), model.state_dict()
    for name, tensor in state.items():
        if own[name] in tensors and f"{own[name]}_scale" not in tensors:
            tensor.copy_(tensors[own[name]])
    return model
