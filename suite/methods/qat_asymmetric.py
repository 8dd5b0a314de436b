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
from typing import TYPE_CHECKING, ClassVar

from suite.recipe import Precision, Sgd
from suite.recipe.errors import SuiteError, check_bits

if TYPE_CHECKING:
    from torch import nn

    from suite.quantize.observers import Observer
    from suite.quantize.quantizer import Mode, Quantizer


@dataclass(frozen=True)
class QatAsymmetric:
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
    revision: ClassVar[int] = 1
    batch_norm: ClassVar[str] = "trained"
    edges: ClassVar[str] = "first input and last layer float"

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("act_bits", self.act_bits)
        if not 0 < self.momentum <= 1:
            raise SuiteError(f"momentum {self.momentum} is out of range; use a fraction above 0 and up to 1")

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy that rounds in the forward pass."""
        from torch import nn

        from suite.quantize.layers import quantize
        from suite.quantize.observers import Dynamic, MinMax, MovingMinMax

        def activation(first: bool) -> Quantizer | None:
            mode: Mode = "dynamic" if self.ranges_move else "track"
            return None if first else self.quantizer(self.act_bits, MovingMinMax(self.momentum), mode)

        def weight() -> Quantizer:
            observer = MinMax(axis=0) if self.running_extreme else Dynamic(axis=0)
            return self.quantizer(self.weight_bits, observer, "dynamic", axis=0)

        return quantize(model, (nn.Conv2d,), activation, weight)

    def quantizer(self, bits: int, observer: Observer, mode: Mode, axis: int | None = None) -> Quantizer:
        """A quantizer on the unsigned grid, with a zero point."""
        from suite.quantize.affine import Grid
        from suite.quantize.quantizer import Quantizer

        return Quantizer(Grid(bits, signed=False), observer, mode, symmetric=False, axis=axis)

    def convert(self, model: nn.Module) -> nn.Module:
        """The trained model with rounded weights and the last ranges."""
        from suite.quantize.layers import bake

        return bake(model)
