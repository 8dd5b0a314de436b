"""Post-training quantization by a histogram (source 002, "hist").

Each activation's histogram is searched for the range of least squared quantization error. Quantizers are on the
inputs of convolution, linear, ReLU and average pooling; weights go by their extremes per output channel; nothing is
folded; the grid is symmetric and signed, also after ReLU, where half of it is never used (`unsigned_after_relu`). The
histogram is the method's own, in equal bins; `mse` is the variant that shares its histograms with other methods.

Where the source misleads: its modified HistogramObserver merges the range it searched with the running min and max,
so the search does nothing (`search=False`); it searches for as many bins as there are bits, not 2^bits
(`bins_are_bits`); it calibrates in training mode while quantizing, so BatchNorm's statistics are silently
re-estimated (`train_mode`); quantizers before ReLU and pooling round twice (`layers_only` leaves them out).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from suite.recipe import Calibration
from suite.recipe.errors import check_widths
from suite.recipe.method import Method, Step
from suite.steps import Bake, Insert, RunCalibration, SearchedHistogram, Uniform
from suite.steps.rounding import Range, Updates


@dataclass(frozen=True)
class Histogram(Method):
    """2 to 16 bits for weights and activations."""

    weight_bits: int = 8
    act_bits: int = 8
    search: bool = True
    bins_are_bits: bool = False
    train_mode: bool = False
    layers_only: bool = False
    unsigned_after_relu: bool = False
    feed: Calibration = field(default_factory=Calibration)

    name: ClassVar[str] = "histogram"

    def __post_init__(self) -> None:
        check_widths(self)

    @property
    def batch_norm(self) -> str:
        """Estimated again while calibrating, where that is done in training mode."""
        return "re-estimated" if self.train_mode else "kept"

    def steps(self) -> tuple[Step, ...]:
        """Batch by batch, as the source calibrates."""
        return batch_by_batch(self, SearchedHistogram(self.search, self._search_bits()))

    def _search_bits(self) -> int | None:
        """Where `bins_are_bits`, the width whose number of integers is nearest to the number of bits."""
        return max(2, round(math.log2(self.act_bits))) if self.bins_are_bits else None


def batch_by_batch(method: Any, inputs: Range) -> tuple[Step, ...]:
    """How source 002 calibrates: `inputs` watches each batch that passes a network that is quantized, where the
    `method` says train_mode in training mode, so that it is quantized by what was seen so far."""
    updates: Updates = "training" if method.train_mode else "once"
    insert = Insert(
        Uniform(per="channel", updates="always" if method.train_mode else "once"),
        Uniform(inputs, updates=updates, unsigned=method.unsigned_after_relu),
        method.weight_bits,
        method.act_bits,
        relu_and_pool=not method.layers_only,
        training=method.train_mode,
    )
    return insert, RunCalibration(method.feed), Bake()
