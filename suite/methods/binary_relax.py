"""BinaryRelax (arXiv 1801.06313): weights that move to their levels while training, by a mean of both.

A weight counts as (1 - share) * weight + share * its nearest level. The share grows evenly from 0 to 1, which it
reaches at `until`, a part of the training, as PARQ's authors run it; the paper lets share / (1 - share) grow by a
factor an epoch. Levels, inputs and first and last layer are those of `parq`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from suite.methods.lsq import LearnedMethod
from suite.recipe import FLOAT_BITS
from suite.recipe.method import Step
from suite.recipe.settings import NEW
from suite.steps import BinaryRelax as Rounding
from suite.steps import Lsq, StartUntrained, Uniform


@dataclass(frozen=True)
class BinaryRelax(LearnedMethod):
    """Where inputs are rounded, their step sizes learn as in `lsq`. from_scratch: train the network anew, as the
    authors do, and not on from its float weights."""

    act_bits: int = FLOAT_BITS
    from_scratch: bool = field(default=False, metadata=NEW, kw_only=True)
    until: float = 0.75

    name: ClassVar[str] = "binary_relax"

    @property
    def weights(self) -> Uniform:
        return Rounding(until=self.until)

    @property
    def inputs(self) -> Uniform:
        return Lsq(unsigned=True)

    def steps(self) -> tuple[Step, ...]:
        return (*([StartUntrained()] if self.from_scratch else []), *super().steps())
