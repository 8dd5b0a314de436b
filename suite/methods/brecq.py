"""Learned rounding, residual block by residual block (BRECQ, Li et al. 2021, arXiv 2102.05426).

None of source 000 to source 004 has it. As `adaround`, but a block learns as a whole what it gives behind its
addition. Afterwards the steps of the activations are learned, with the weights rounded, in a quarter of the
iterations. As in the authors' code the error is squared and not weighted by Fisher information, and beta falls
linearly. Other than there, the stem is learned too, and what is added is not quantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.adaround import Adaround
from suite.recipe import FLOAT_BITS
from suite.steps import Reconstruct


@dataclass(frozen=True)
class Brecq(Adaround):
    """Fields as of `adaround`."""

    name: ClassVar[str] = "brecq"

    def reconstructions(self) -> tuple[Reconstruct, ...]:
        """One of the rounding, one of the steps; none of what is float."""
        rounding = self.reconstruct("block", "rounding")
        return (
            (rounding,)
            if self.act_bits == FLOAT_BITS
            else (rounding, self.reconstruct("block", "steps", 0.25))
        )
