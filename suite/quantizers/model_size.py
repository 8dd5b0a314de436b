"""The size of a model as it would be stored."""

from __future__ import annotations

from torch import nn

from suite.networks.graph import BATCH_NORM
from suite.quantizers.layers import Quantized, stored_parameters


def size_mb(model: nn.Module) -> float:
    """Megabytes (1e6 bytes) of all parameters and BatchNorm statistics as they would be stored.

    A quantized weight takes the bits `set_weight` noted, an int8 module of torch.ao one byte a weight, anything
    else what its dtype takes. Scales and zero points are left out (under 1 % in every method here).
    """
    bits = 0
    for module in model.modules():
        stored = stored_parameters(module)
        for name, parameter in module.named_parameters(recurse=False):
            width = stored[name].bits if name in stored else 8 * parameter.element_size()
            bits += parameter.numel() * width
        if isinstance(module, BATCH_NORM):
            bits += 2 * 32 * module.num_features
        if not isinstance(module, Quantized):
            bits += _packed_bits(module)
    return bits / 8e6


def _packed_bits(module: nn.Module) -> int:
    """Bits of an int8 module of torch.ao: its weight and bias are methods, not parameters."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not callable(weight):
        return 0
    floats = bias() if callable(bias) else None
    return 8 * int(weight().numel()) + (32 * int(floats.numel()) if floats is not None else 0)
