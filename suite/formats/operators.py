"""A quantized network with operators of a format in place of its quantizers and rounded weights.

Formats differ in their operators alone: how an input is quantized, and how a stored weight is read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from suite.integers.levels import Integers, Levels, integers_of, levels_of
from suite.networks.own_forward import computed
from suite.quantizers.layers import LAYERS, Quantized, stored_parameters
from suite.quantizers.quantizer import Quantizer


class StoredWeight(nn.Module):
    """A layer that multiplies by stored integers, its input quantized before or not."""

    q: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self, layer: nn.Module, input: nn.Module | None, q: Tensor, scale: Tensor, zero_point: Tensor
    ) -> None:
        super().__init__()
        self.layer, self.input = layer, input
        for name, value in {"q": q, "scale": scale, "zero_point": zero_point}.items():
            self.register_buffer(name, value)

    def weight(self) -> Tensor:
        """The stored weight in float32, by the format's operator."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        return computed(self.layer, self.input(x) if self.input is not None else x, self.weight())


def with_operators(
    model: nn.Module,
    quantized: Callable[[Levels], nn.Module],
    stored: Callable[[str, nn.Module, nn.Module | None, Integers], StoredWeight],
) -> nn.Module:
    """A copy of `model`, evaluating: `quantized` of its levels for each quantizer, `stored` of (name, layer, its
    quantized input or None, integers) for each layer of a rounded weight."""
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, Quantized):
            input = quantized(levels_of(module.input)) if module.input is not None else None
            weight = integers_of(module.layer) if isinstance(module.layer, LAYERS) else None
            if weight is not None:
                made: nn.Module = stored(name, module.layer, input, weight)
            else:
                made = nn.Sequential()
                made.add_module("input", input or nn.Identity())
                made.add_module("layer", module.layer)
            model.set_submodule(name, made)
    for name, module in list(model.named_modules()):
        if isinstance(module, Quantizer):
            model.set_submodule(name, quantized(levels_of(module)))
        elif isinstance(module, LAYERS) and "weight" in stored_parameters(module):
            weight = integers_of(module)
            holder = model.get_submodule(name.rpartition(".")[0])
            if weight is not None and not isinstance(holder, StoredWeight):
                model.set_submodule(name, stored(name, module, None, weight))
    return model
