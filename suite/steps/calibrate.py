"""The ranges of the inputs of layers: from histograms that all methods share, or batch by batch as in a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from suite.recipe import Calibration
from suite.recipe.method import Feed, Step
from suite.steps.rounding import MinMax, RangeOfHistogram

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TakeRanges(Step):
    """Each quantizer of an input gets its range from the histograms of the float network's inputs, at its own width.

    `unsigned`: an input that was never negative is rounded to 0..2^bits - 1; any other to the narrow signed grid.
    """

    range: RangeOfHistogram = field(default_factory=MinMax)
    unsigned: bool = False
    calibration: Calibration = field(default_factory=Calibration)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself, in which `Insert` has put quantizers."""
        from suite.quantizers.histogram_ranges import symmetric_grid
        from suite.quantizers.layers import Quantized

        seen = feed.histograms(self.calibration)
        held = {name: module for name, module in model.named_modules() if isinstance(module, Quantized)}
        widths = sorted({module.input.grid.bits for module in held.values() if module.input})
        amax = self.range.amax(seen, widths, self.unsigned)
        for row, name in enumerate(seen.names):
            if name in held and (quantizer := held[name].input):
                bits = quantizer.grid.bits
                grid = symmetric_grid(bits, unsigned=self.unsigned and bool(seen.low[row] >= 0))
                quantizer.fix(grid, *grid.symmetric(amax[row, widths.index(bits)]))
        return model


@dataclass(frozen=True)
class RunCalibration(Step):
    """The model runs over the calibration images, so that its quantizers watch them, batch by batch.

    In the model's own mode: one that trains also moves BatchNorm's statistics, which source 002 does.
    """

    calibration: Calibration = field(default_factory=Calibration)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        import torch

        with torch.no_grad():
            for x in feed.batches(self.calibration):
                model(x)
        return model
