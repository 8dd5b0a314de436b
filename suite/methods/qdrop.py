"""Rounding learned while activations are rounded or, at random, float (QDrop, Wei et al. 2022, arXiv 2203.05740).

None of source 000 to source 004 has it. As `brecq`, but the rounding of the weights and the steps of the activations
are learned together, while `drop` of all elements of activations are left float, other ones in each iteration. The
authors' code has the probability of the opposite; both are one half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.adaround import Adaround
from suite.steps import Reconstruct


@dataclass(frozen=True)
class Qdrop(Adaround):
    """Fields as of `adaround`; `drop` as of Reconstruct."""

    drop: float = 0.5

    name: ClassVar[str] = "qdrop"

    def reconstructions(self) -> tuple[Reconstruct, ...]:
        """One, of rounding and steps."""
        return (self.reconstruct("block", "both", drop=self.drop),)
