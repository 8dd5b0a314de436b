"""Post-training quantization by least squared error (the "mse" calibration of source 004's package).

No source has numbers for it. The input of every convolution and linear layer is rounded in the range that minimizes
the squared error over all calibration images, found in the Histograms that all recipes of one float network share;
one that was never negative takes the unsigned grid. Weights are symmetric per output channel, each in its range of
least squared error, by its largest magnitude without `search_weights`. Nothing is folded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from suite.methods.scheme import Scheme
from suite.recipe import Calibration
from suite.recipe.errors import check_widths
from suite.recipe.method import Method, Step
from suite.steps import CurrentMinMax, LeastError, Uniform
from suite.steps.rounding import RangeOfHistogram


@dataclass(frozen=True)
class Mse(Method):
    """2 to 16 bits for weights and activations."""

    weight_bits: int = 8
    act_bits: int = 8
    search_weights: bool = True
    feed: Calibration = field(default_factory=Calibration)

    name: ClassVar[str] = "mse"
    range: ClassVar[RangeOfHistogram] = LeastError()

    def __post_init__(self) -> None:
        check_widths(self)

    def steps(self) -> tuple[Step, ...]:
        """Inputs from the histograms that all recipes of one float network share."""
        weights = Uniform(LeastError() if self.search_weights else CurrentMinMax(), per="channel")
        inputs = Uniform(self.range, unsigned=True)  # type: ignore[arg-type]
        return Scheme(self.weight_bits, self.act_bits, weights, inputs, calibration=self.feed).steps()
