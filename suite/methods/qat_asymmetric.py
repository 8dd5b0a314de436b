"""Quantization-aware training, asymmetric (source 001).

    scale = (max - min) / 255;  q = clamp(round(x / scale - z), 0, 255);  x ~ (q + z) * scale;  z = round(min / scale)

The source's z is our -zero_point: x ~ (q - zero_point) * scale. Weights per output channel by their current extremes,
inputs per layer by a moving average of the batches' extremes; rounding passes the gradient straight through, clamping
stops it. Convolutions only, as Conv2d_Q is all that the source shows; the first one's input is left alone. A range is
widened to hold zero, which the source's buffers that start at zero do for weights and a layer's input does of itself.

Where the source misleads: its text averages with 0.99 old, its code with 0.9 (`momentum` weighs the new). Its weight
tracker is meant to keep a running extreme (`running_extreme`), but its temporary is an alias of the buffer it clears,
so it forgets: what it holds is the current extreme, the default here. It also lets ranges move while evaluating
(`ranges_move`); here they rest. And it does not say whether it trains on or anew (`from_scratch`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from suite.recipe import Precision, Sgd
from suite.recipe.errors import check_fraction, check_widths
from suite.recipe.method import Method, Step
from suite.steps import (
    Bake,
    CurrentMinMax,
    Insert,
    MinMax,
    MovingMinMax,
    StartUntrained,
    TrainOn,
    Uniform,
)
from suite.steps.rounding import Range


@dataclass(frozen=True)
class QatAsymmetric(Method):
    """Trains on with `feed`, by default in float32 as the source does; 2 to 16 bits. With `from_scratch` it begins as
    the float training began."""

    weight_bits: int = 8
    act_bits: int = 8
    momentum: float = 0.1
    running_extreme: bool = False
    ranges_move: bool = False
    from_scratch: bool = False
    feed: Sgd = field(default_factory=lambda: Sgd(epochs=1, batch=128, lr=0.01, precision=Precision("O0")))

    name: ClassVar[str] = "qat_asymmetric"
    edges: ClassVar[str] = "first input and last layer float"

    def __post_init__(self) -> None:
        check_widths(self)
        check_fraction("momentum", self.momentum)

    @property
    def batch_norm(self) -> str:
        """Trained with the rest."""
        return "trained"

    def steps(self) -> tuple[Step, ...]:
        """The network trains with its quantizers in."""
        return (
            *((StartUntrained(),) if self.from_scratch else ()),
            Insert(
                self.rounding(
                    MinMax() if self.running_extreme else CurrentMinMax(), per="channel", updates="always"
                ),
                self.rounding(
                    MovingMinMax(self.momentum), updates="always" if self.ranges_move else "training"
                ),
                self.weight_bits,
                self.act_bits,
                linear=False,
                first_input=False,
            ),
            TrainOn(self.feed),
            Bake(),
        )

    def rounding(self, range: Range, **how: Any) -> Uniform:
        """On the unsigned grid, with a zero point."""
        return Uniform(range, grid="affine", **how)
