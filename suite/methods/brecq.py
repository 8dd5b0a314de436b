"""Learned rounding, residual block by residual block (BRECQ, Li et al. 2021, arXiv 2102.05426).

None of source 000 to source 004 has it. As `adaround`, but a block learns as a whole what it gives behind its
addition. Afterwards the steps of the activations are learned, with the weights rounded, in a quarter of the
iterations. As the authors' code is run the error is squared, and weighted by Fisher information only where `fisher`
asks for it; as there beta falls linearly. Other than there, the stem is learned too, what is added is not quantized
unless `carried` is "rounded", and steps are learned by squared error and by their logarithms (there by |error|^2.4, at
4e-4 in 5,000 iterations).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from suite.methods.adaround import Adaround
from suite.recipe import FLOAT_BITS
from suite.recipe.settings import NEW
from suite.steps import Reconstruct


@dataclass(frozen=True)
class Brecq(Adaround):
    """Fields as of `adaround`; `fisher` as of Reconstruct."""

    fisher: bool = field(default=False, metadata=NEW)

    name: ClassVar[str] = "brecq"

    def reconstructions(self) -> tuple[Reconstruct, ...]:
        """One of the rounding, one of the steps; none of what is float."""
        found: tuple[Reconstruct, ...] = (self.reconstruct("block", "rounding"),)
        if self.act_bits != FLOAT_BITS:
            found += (self.reconstruct("block", "steps", 0.25),)
        return tuple(replace(step, fisher=self.fisher) for step in found)
