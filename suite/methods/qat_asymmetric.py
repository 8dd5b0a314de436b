"""Quantization-aware training, asymmetric (source 001).

    scale = (max - min) / 255;  q = clamp(round(x / scale - z), 0, 255);  x ~ (q + z) * scale;  z = round(min / scale)

The source's z is our -zero_point: x ~ (q - zero_point) * scale. All else as in `qat_symmetric`. The range is widened
to hold zero, which the source's buffers that start at zero do for weights and a layer's input does of itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from suite.affine import Grid
from suite.observers import InFlight, MovingMinMax
from suite.recipe import Precision, Sgd
from suite.surgery import Quantizer, bake, quantize
from suite.values import SuiteError, check_bits


@dataclass(frozen=True)
class QatAsymmetric:
    """Trains on with `feed`, by default in float32 as the source does; 2 to 16 bits."""

    weight_bits: int = 8
    act_bits: int = 8
    momentum: float = 0.1
    feed: Sgd = field(default_factory=lambda: Sgd(epochs=1, batch=128, lr=0.01, precision=Precision("O0")))

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("act_bits", self.act_bits)
        if not 0 < self.momentum <= 1:
            raise SuiteError(f"momentum {self.momentum} is out of range; use a fraction above 0 and up to 1")

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy that rounds in the forward pass."""

        def activation(first: bool) -> Quantizer | None:
            grid = Grid(self.act_bits, signed=False)
            observer = MovingMinMax(self.momentum)
            return None if first else Quantizer(grid, observer, "track", symmetric=False)

        def weight() -> Quantizer:
            grid = Grid(self.weight_bits, signed=False)
            return Quantizer(grid, InFlight(axis=0), "in_flight", symmetric=False, axis=0)

        return quantize(model, (nn.Conv2d,), activation, weight)

    def convert(self, model: nn.Module) -> nn.Module:
        """The trained model with rounded weights and the last ranges."""
        return bake(model)
