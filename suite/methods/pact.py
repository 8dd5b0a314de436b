"""PACT (arXiv 1805.06085): where an input is clipped, learns; weights are DoReFa's.

    x ~ round(clamp(x, 0, a) * n / a) * a / n, n = 2^k - 1       da: 1 where x is clipped

The clip `a` begins at the range of least squared error over the calibration images, and an L2 penalty draws it in. An
input that may be negative, such as the image, is clipped at -a too, which the paper has not. The published numbers are
of first and last layers with 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.lsq import LearnedMethod
from suite.steps import Dorefa, Uniform
from suite.steps import Pact as Rounding


@dataclass(frozen=True)
class Pact(LearnedMethod):
    """clip_lr: times the learning rate, for the clips; clip_weight_decay: their L2 penalty."""

    clip_lr: float = 1.0
    clip_weight_decay: float = 2e-4

    name: ClassVar[str] = "pact"

    @property
    def weights(self) -> Uniform:
        return Dorefa()

    @property
    def inputs(self) -> Uniform:
        return Rounding(lr_scale=self.clip_lr, weight_decay=self.clip_weight_decay)
