"""Post-training quantization by a histogram (source 002, "hist").

Each activation's histogram is searched for the range of least squared quantization error. Quantizers stand on the
inputs of convolution, linear, ReLU and average pooling; weights go by their extremes per output channel; nothing is
folded; the grid is symmetric and signed, also after ReLU, where half of it is never used (`unsigned_after_relu`).

Where the source misleads: its modified HistogramObserver merges the range it searched with the running min and max,
so the search does nothing (`search=False`); it searches for as many bins as there are bits, not 2^bits
(`bins_are_bits`); it calibrates in training mode while quantizing, so BatchNorm's statistics are silently
re-estimated (`train_mode`); quantizers before ReLU and pooling round twice (`layers_only` leaves them out).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from suite.recipe import Calibration
from suite.recipe.errors import check_bits

if TYPE_CHECKING:
    from torch import nn

    from suite.quantize.affine import Grid
    from suite.quantize.quantizer import Mode, Quantizer


@dataclass(frozen=True)
class Histogram:
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
    revision: ClassVar[int] = 1
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("act_bits", self.act_bits)

    @property
    def batch_norm(self) -> str:
        """Estimated again while calibrating, where that is done in training mode."""
        return "re-estimated" if self.train_mode else "kept"

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy that observes."""
        from suite.quantize.affine import Grid
        from suite.quantize.layers import LAYERS, RELU_AND_POOL, quantize
        from suite.quantize.observers import Histogram as HistogramObserver
        from suite.quantize.quantizer import Quantizer, per_channel

        def activation(first: bool) -> Quantizer:
            mode: Mode = "track" if self.train_mode else "observe"
            observer = HistogramObserver(search=self.search, search_grid=self._search_grid())
            return Quantizer(
                Grid(self.act_bits, narrow=True), observer, mode, unsigned=self.unsigned_after_relu
            )

        weight_mode: Mode = "dynamic" if self.train_mode else "observe"
        kinds = LAYERS if self.layers_only else LAYERS + RELU_AND_POOL
        prepared = quantize(model, kinds, activation, lambda: per_channel(self.weight_bits, weight_mode))
        return prepared.train(self.train_mode)

    def convert(self, model: nn.Module) -> nn.Module:
        """The model with rounded weights and settled ranges."""
        from suite.quantize.layers import bake

        return bake(model)

    def _search_grid(self) -> Grid | None:
        """Where `bins_are_bits`, the grid whose number of integers is nearest to the number of bits."""
        from suite.quantize.affine import Grid

        return Grid(max(2, round(math.log2(self.act_bits)))) if self.bins_are_bits else None
