"""Scale-only symmetric quantization by the largest magnitude (source 004, NVIDIA; arXiv 2004.09602).

    y = alpha / (2^(k-1) - 1) * rn((2^(k-1) - 1) / alpha * clip(x, -alpha, alpha))

On every convolution and linear layer: weights per output channel, inputs per tensor, the grid narrow (255 values at
8 bits), as QuantConv2d and QuantLinear do by default. By default alpha ("amax") of the input is computed anew
for each batch; with a Calibration as `feed` it is the largest of that and then fixed. The source is sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.scheme import Scheme
from suite.recipe import Calibration
from suite.recipe.errors import check_widths
from suite.recipe.method import Method, Step
from suite.steps import CurrentMinMax, MinMax, Uniform


@dataclass(frozen=True)
class Amax(Method):
    """Weights and inputs of every layer, 2 to 16 bits each."""

    weight_bits: int = 8
    act_bits: int = 8
    feed: Calibration | None = None

    name: ClassVar[str] = "amax"

    def __post_init__(self) -> None:
        check_widths(self)

    def steps(self) -> tuple[Step, ...]:
        """Inputs by the extremes of the calibration images, or of each batch."""
        weights, inputs = Uniform(per="channel"), Uniform(MinMax() if self.feed else CurrentMinMax())
        return Scheme(self.weight_bits, self.act_bits, weights, inputs, calibration=self.feed).steps()
