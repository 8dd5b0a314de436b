"""A quantized network as plain tensors: integers, scales and zero points by name, for readers of one's own.

Of a layer NAME: `NAME.weight` the integers, `NAME.weight_scale` and `NAME.weight_zero_point` ([] or one a channel of
axis 0), `NAME.input_scale` and `NAME.input_zero_point`; x ~ (q - zero_point) * scale. All else has its own name.
"""

from __future__ import annotations

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
        plain = name.removesuffix(".layer")
        if isinstance(module, Quantizer):
            levels = levels_of(module)
            of = name if name.endswith(".input") else f"{name}.input"
            found[f"{of}_scale"] = levels.scale
            found[f"{of}_zero_point"] = torch.tensor(levels.zero_point, dtype=torch.int32)
            replaced |= {f"{name}.{own}" for own in module.state_dict()}
        elif isinstance(module, LAYERS) and (weight := integers_of(module)) is not None:
            q, zero_point = stored(weight)
            found |= {f"{plain}.weight": q, f"{plain}.weight_scale": weight.scale}
            found[f"{plain}.weight_zero_point"] = zero_point
            replaced.add(f"{name}.weight")
    held = {name for name, module in model.named_modules() if isinstance(module, Quantized)}
    for name, tensor in model.state_dict().items():
        if name not in replaced:
            owner, _, own = name.rpartition(".")
            holder = owner.removesuffix(".layer")
            found[f"{holder}.{own}" if holder in held else name] = tensor
    return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


def state_dict_file(model: nn.Module) -> bytes:
    """torch.save of them, for torch.load(weights_only=True)."""
    stream = io.BytesIO()
    torch.save(tensors_of(model), stream)
    return stream.getvalue()


def safetensors_file(model: nn.Module, about: dict[str, str]) -> bytes:
    """In the safetensors format, `about` among its metadata."""
    from safetensors.torch import save

    content: Any = save(tensors_of(model), about)
    return bytes(content)
