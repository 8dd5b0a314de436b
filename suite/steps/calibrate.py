"""The ranges of the inputs of layers: from histograms that methods share, or batch by batch as in a source.

Shared, in one pass of the float network for all methods at every width: `amax` with a calibration, `mse`, `entropy`,
and each Scheme whose range of inputs is computed from histograms, such as Uniform(Percentile()).

As their sources calibrate, because the ranges would be others: `histogram` and `percentile` (source 002) also watch
ReLU and pooling, one by equal bins of its own, one by a moving average of the batches' percentile, and as published
while the network trains and rounds; `builtin_int8` has torch.ao's observers.
"""

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
    """Each quantizer of an input gets its range, at its own width, from the histograms of the float network."""

    range: RangeOfHistogram = field(default_factory=MinMax)
    calibration: Calibration = field(default_factory=Calibration)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself, in which `Insert` has put quantizers."""
        from suite.quantizers.block_inputs import BlockInput
        from suite.quantizers.layers import Quantized

        layers = {name: module for name, module in model.named_modules() if isinstance(module, Quantized)}
        quantizers = {
            layer.readers[0] if isinstance(layer, BlockInput) else name: layer.input
            for name, layer in layers.items()
            if layer.input
        }
        if not quantizers:
            return model
        seen = feed.histograms(self.calibration)
        widths = sorted({one.grid.bits for one in quantizers.values()})
        if all(one.symmetric for one in quantizers.values()):
            high = self.range.amax(seen, widths, any(one.unsigned for one in quantizers.values()))
            low = -high
        else:
            low, high = self.range.ends(seen, widths)
        for row, name in enumerate(seen.names):
            if quantizer := quantizers.get(name):
                width = widths.index(quantizer.grid.bits)
                quantizer.fix(low[row, width], high[row, width], never_negative=bool(seen.low[row] >= 0))
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
