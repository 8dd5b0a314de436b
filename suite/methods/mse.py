"""Post-training quantization by least squared error (the "mse" calibration of source 004's package).

No source has numbers for it. The input of every convolution and linear layer is rounded in the range that minimizes
the squared error over all calibration images, found in the Histograms that all recipes of one float network share;
one that was never negative takes the unsigned grid. Weights are symmetric per output channel, each in its range of
least squared error, by its largest magnitude without `search_weights`. Nothing is folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from suite.recipe import Calibration
from suite.recipe.errors import check_bits

if TYPE_CHECKING:
    from torch import Tensor, nn

    from suite.quantize.histogram import Histograms
    from suite.quantize.quantizer import Quantizer


@dataclass(frozen=True)
class Mse:
    """2 to 16 bits for weights and activations."""

    weight_bits: int = 8
    act_bits: int = 8
    search_weights: bool = True
    feed: Calibration = field(default_factory=Calibration)

    name: ClassVar[str] = "mse"
    revision: ClassVar[int] = 1
    layerwise: ClassVar[bool] = True
    observes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("act_bits", self.act_bits)

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy with quantizers that wait for their ranges."""
        from suite.quantize.affine import Grid
        from suite.quantize.layers import LAYERS, quantize
        from suite.quantize.observers import Dynamic, LeastError
        from suite.quantize.quantizer import Quantizer

        def activation(first: bool) -> Quantizer:
            return Quantizer(Grid(self.act_bits, narrow=True), Dynamic(), "observe")

        def weight() -> Quantizer:
            observer = LeastError(axis=0) if self.search_weights else Dynamic(axis=0)
            return Quantizer(Grid(self.weight_bits, narrow=True), observer, "observe", axis=0)

        return quantize(model, LAYERS, activation, weight).eval()

    def take_ranges(self, model: nn.Module, seen: Histograms) -> None:
        """Give each input of the prepared `model` the range that was found for it."""
        from suite.quantize.layers import Quantized
        from suite.quantize.range_search import symmetric_grid

        held = {name: module for name, module in model.named_modules() if isinstance(module, Quantized)}
        widths = sorted({module.input.grid.bits for module in held.values() if module.input})
        amax = self.amax(seen, widths)
        for row, name in enumerate(seen.names):
            if name in held and (quantizer := held[name].input):
                bits = quantizer.grid.bits
                grid = symmetric_grid(bits, unsigned=bool(seen.low[row] >= 0))
                quantizer.fix(grid, *grid.symmetric(amax[row, widths.index(bits)]))

    def amax(self, seen: Histograms, bits: Sequence[int]) -> Tensor:
        """float32 [L, widths]: of each layer at each width."""
        from suite.quantize.range_search import mse

        return mse(seen, bits, unsigned=True)

    def convert(self, model: nn.Module) -> nn.Module:
        """The model with rounded weights."""
        from suite.quantize.layers import bake

        return bake(model)
