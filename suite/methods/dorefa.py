"""DoReFa-Net (arXiv 1606.06160): fixed ranges, weights mapped through tanh.

    w ~ 2 * round((tanh(w) / (2 max|tanh(w)|) + 1/2) n) / n - 1       x ~ round(clamp(x, 0, 1) n) / n       n = 2^k - 1

No weight is zero, and what an input has above 1 is lost: BatchNorm has to learn small enough outputs. An input that
may be negative, such as the image, keeps its calibrated range instead. First and last layer, which the paper leaves in
float, have 8 bits by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.lsq import LearnedMethod
from suite.steps import Dorefa as Rounding
from suite.steps import Uniform


@dataclass(frozen=True)
class Dorefa(LearnedMethod):
    """Nothing but the weights of the network learns."""

    name: ClassVar[str] = "dorefa"

    @property
    def weights(self) -> Uniform:
        return Rounding()

    @property
    def inputs(self) -> Uniform:
        return Rounding(of="inputs", unsigned=True)
