"""LSQ+ (arXiv 2004.09576): LSQ whose inputs have an offset that learns too.

    x ~ round(clamp((x - b) / s, 0, 2^k - 1)) * s + b       db: 1 where x is clipped, times 1 / sqrt(N Qp)

Step size and offset of an input begin at those of least squared error over the calibration images, zero exact; a
weight has LSQ's signed grid, and its range begins at max(|mean - 3 std|, |mean + 3 std|), as in the paper. Where the
offset is 0, it is LSQ. First and last layer have 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.lsq import LearnedMethod
from suite.recipe import FLOAT_BITS
from suite.recipe.method import Step
from suite.steps import Bake, Deviations, Insert, LeastError, Lsq, StartLearning, TakeRanges
from suite.steps import LsqPlus as Rounding


@dataclass(frozen=True)
class LsqPlus(LearnedMethod):
    """step_lr: times the learning rate, for the step sizes and offsets; step_weight_decay: theirs."""

    step_lr: float = 1.0
    step_weight_decay: float = 0.0

    name: ClassVar[str] = "lsq_plus"

    def steps(self) -> tuple[Step, ...]:
        """As LSQ's, with the ranges of inputs that have an offset."""
        lr, decay = self.step_lr, self.step_weight_decay
        return (
            Insert(
                Lsq(Deviations(), lr_scale=lr, weight_decay=decay),
                Rounding(lr_scale=lr, weight_decay=decay),
                self.weight_bits,
                self.act_bits,
                first_last=self.first_last,
                first_last_inputs=self.first_last_inputs,
            ),
            *((TakeRanges(LeastError(), self.calibration),) if self.act_bits != FLOAT_BITS else ()),
            StartLearning(),
            self.training,
            Bake(),
        )
