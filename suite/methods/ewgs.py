"""Element-wise gradient scaling, EWGS (arXiv 2104.00903).

    c = clamp((x - l) / (u - l), 0, 1)      q = round(c n) / n, n = 2^k - 1      dc: g (1 + d sign(g) (c - q))

Both ends of each range learn, and of a weight what it is multiplied by, -gain..gain. Where the authors scale the
layer's output and give it inputs from 0 to 1, an input keeps here the units that it had at first. Ranges begin at 3
standard deviations of a weight, and of an input at the range of least squared error over the calibration images (the
authors take 3 standard deviations again). `scaling` is a fixed d, one of the authors' two ways; the other, by the
trace of the Hessian, is not here, and neither is their Adam. First and last layer, in float there, have 8 bits by
default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from suite.methods.lsq import LearnedMethod
from suite.steps import Deviations, Uniform
from suite.steps import Ewgs as Rounding


@dataclass(frozen=True)
class Ewgs(LearnedMethod):
    """scaling: of the gradient, 0 or more; 0 is the straight-through estimator. range_lr: times the learning rate, for
    the ends of the ranges and the gains; range_weight_decay: theirs."""

    scaling: float = 1e-3
    range_lr: float = 0.01
    range_weight_decay: float = 0.0

    name: ClassVar[str] = "ewgs"

    @property
    def weights(self) -> Uniform:
        return replace(self._rounding, range=Deviations(), of="weights", unsigned=False)

    @property
    def inputs(self) -> Uniform:
        return self._rounding

    @property
    def _rounding(self) -> Rounding:
        lr, decay = self.range_lr, self.range_weight_decay
        return Rounding(of="inputs", unsigned=True, scaling=self.scaling, lr_scale=lr, weight_decay=decay)
