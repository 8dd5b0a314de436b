"""PARQ (arXiv 2503.15748): weights that move to their levels while training.

Between two levels a weight is mapped by a line through their middle, clipped at both. Its slope is 1 at first and
infinite from `until`, a part of the training, on: 1 / slope falls by a sigmoid of this `steepness`. The gradient
passes unchanged. The levels are sums of -v or v, found greedily by least squares for each weight; from 8 bits on they
are even. As in the authors' command for ResNet-20, inputs stay float, and three quarters of the training harden the
weights. The authors train from scratch (`from_scratch`; by default the float network is trained on), and give the
first and the last layer the width of the rest: here that is first_last, 8 bits by default (the sweep `lowbit` has
`--first-last rest`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from suite.methods.lsq import LearnedMethod
from suite.recipe import FLOAT_BITS
from suite.recipe.method import Step
from suite.recipe.settings import NEW
from suite.steps import Lsq, StartUntrained, Uniform
from suite.steps import Parq as Rounding


@dataclass(frozen=True)
class HardenedMethod(LearnedMethod):
    """Weights that are on their levels from `until` on, a part of the training. Where inputs are rounded, their step
    sizes learn as in `lsq`. from_scratch: train the network anew, as the authors do, and not on from its float
    weights."""

    act_bits: int = FLOAT_BITS
    from_scratch: bool = field(default=False, metadata=NEW, kw_only=True)
    until: float = 0.75

    @property
    def inputs(self) -> Uniform:
        return Lsq(unsigned=True)

    def steps(self) -> tuple[Step, ...]:
        return (*([StartUntrained()] if self.from_scratch else []), *super().steps())


@dataclass(frozen=True)
class Parq(HardenedMethod):
    """steepness: of the sigmoid by which the inverse slope falls."""

    steepness: float = 100.0

    name: ClassVar[str] = "parq"

    @property
    def weights(self) -> Uniform:
        return Rounding(until=self.until, steepness=self.steepness)
