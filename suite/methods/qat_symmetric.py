"""Quantization-aware training, symmetric (source 001).

    q = clamp(round(x * 127 / amax), -128, 127);  x ~ q * amax / 127       at 8 bits

Weights per output channel by their current extremes, inputs per layer by a moving average of the batches' extremes;
rounding passes the gradient straight through, clamping stops it. Convolutions only, as Conv2d_Q is all that the
source shows; the first one's input is left alone.

Where the source misleads: its text divides by 128 and averages with 0.99 old, its code has 127 and 0.9 (`momentum`
weighs the new). Its weight tracker is meant to keep a running extreme, but its temporary is an alias of the buffer
it clears, so it forgets: what it holds is the current extreme, as here. It also lets ranges move while evaluating;
here they rest.
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
class QatSymmetric:
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
            grid = Grid(self.act_bits)
            return None if first else Quantizer(grid, MovingMinMax(self.momentum), "track")

        def weight() -> Quantizer:
            return Quantizer(Grid(self.weight_bits), InFlight(axis=0), "in_flight", axis=0)

        return quantize(model, (nn.Conv2d,), activation, weight)

    def convert(self, model: nn.Module) -> nn.Module:
        """The trained model with rounded weights and the last ranges."""
        return bake(model)
