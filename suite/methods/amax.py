"""Scale-only symmetric quantization by the largest magnitude (source 004, NVIDIA; arXiv 2004.09602).

    y = alpha / (2^(k-1) - 1) * rn((2^(k-1) - 1) / alpha * clip(x, -alpha, alpha))

On every convolution and linear layer: weights per output channel, inputs per tensor, the grid narrow (255 values at
8 bits), as QuantConv2d and QuantLinear do by default. By default alpha ("amax") of the input is computed in flight
for each batch; with a Calibration as `feed` it is the largest of that and then fixed. The source is sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from suite.recipe import Calibration
from suite.recipe.errors import check_bits

if TYPE_CHECKING:
    from torch import nn

    from suite.quantize.quantizer import Quantizer


@dataclass(frozen=True)
class Amax:
    """Weights and inputs of every layer, 2 to 16 bits each."""

    weight_bits: int = 8
    act_bits: int = 8
    feed: Calibration | None = None

    name: ClassVar[str] = "amax"
    revision: ClassVar[int] = 1
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("act_bits", self.act_bits)

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy with quantizers on each layer's input and weight."""
        from suite.quantize.affine import Grid
        from suite.quantize.layers import LAYERS, quantize
        from suite.quantize.observers import Dynamic, MinMax
        from suite.quantize.quantizer import Quantizer, per_channel

        def activation(first: bool) -> Quantizer:
            grid = Grid(self.act_bits, narrow=True)
            if self.feed:
                return Quantizer(grid, MinMax(), "observe")
            return Quantizer(grid, Dynamic(), "dynamic")

        return quantize(model, LAYERS, activation, lambda: per_channel(self.weight_bits, "observe")).eval()

    def convert(self, model: nn.Module) -> nn.Module:
        """The model with rounded weights and settled ranges."""
        from suite.quantize.layers import bake

        return bake(model)
