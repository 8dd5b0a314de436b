"""Post-training quantization by a histogram (source 002, "hist").

Each activation's histogram is searched for the range of least squared quantization error. Quantizers stand on the
inputs of convolution, linear, ReLU and average pooling; weights go by their extremes per output channel; nothing is
folded; the grid is symmetric and signed, also after ReLU, where half of it is never used.

Where the source misleads: its modified HistogramObserver merges the range it searched with the running min and max,
so the search does nothing (`search=False`), and it calibrates in training mode while quantizing, so BatchNorm's
statistics are silently re-estimated (`train_mode`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from suite.affine import Grid
from suite.observers import Histogram as HistogramObserver
from suite.observers import InFlight
from suite.recipe import Calibration
from suite.surgery import LAYERS, Quantizer, bake, quantize
from suite.values import check_bits


@dataclass(frozen=True)
class Histogram:
    """2 to 16 bits for weights and activations."""

    weight_bits: int = 8
    act_bits: int = 8
    search: bool = True
    train_mode: bool = False
    feed: Calibration = field(default_factory=Calibration)

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("act_bits", self.act_bits)

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy that observes."""

        def activation(first: bool) -> Quantizer:
            observer = HistogramObserver(search=self.search)
            return Quantizer(
                Grid(self.act_bits, narrow=True), observer, "track" if self.train_mode else "observe"
            )

        def weight() -> Quantizer:
            return Quantizer(Grid(self.weight_bits, narrow=True), InFlight(axis=0), "observe", axis=0)

        kinds = (*LAYERS, nn.ReLU, nn.AdaptiveAvgPool2d)
        return quantize(model, kinds, activation, weight).train(self.train_mode)

    def convert(self, model: nn.Module) -> nn.Module:
        """The model with rounded weights and settled ranges."""
        return bake(model)
