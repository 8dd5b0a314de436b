"""BinaryRelax (arXiv 1801.06313): weights that move to their levels while training, by a mean of both.

A weight counts as (1 - share) * weight + share * its nearest level. The share grows evenly from 0 to 1, which it
reaches at `until`, a part of the training, as PARQ's authors run it; the paper lets share / (1 - share) grow by a
factor an epoch. Levels, inputs and first and last layer are those of `parq`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.parq import HardenedMethod
from suite.steps import BinaryRelax as Rounding
from suite.steps import Uniform


@dataclass(frozen=True)
class BinaryRelax(HardenedMethod):
    """Nothing but how its weights harden is its own."""

    name: ClassVar[str] = "binary_relax"

    @property
    def weights(self) -> Uniform:
        return Rounding(until=self.until)
