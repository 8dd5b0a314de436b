"""Additive powers of two, APoT (arXiv 1909.13144): levels that are sums of powers of two.

Of a weight, normalized to mean 0 and standard deviation 1, and of an input the nearest level times alpha is taken, and
alpha learns: sign(x) outside, rounded minus x inside. At 4 bits the magnitudes of a weight are {0, 1/2, 1/4, 1/16} +
{0, 1/8}, of an input {0, 1/2, 1/8, 1/32} + {0, 1/4, 1/16, 1/64}, divided by the largest; at 2 bits a weight is -1, 0
or 1. The gradient of a weight is not clipped. As the authors have it, the weights of the first and the last layer have
8 bits, evenly spaced, and their inputs are float. Their training takes several hundred epochs, each width from the one
before (32, 4, 3, 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.lsq import LearnedMethod
from suite.recipe import FLOAT_BITS
from suite.steps import Apot as Rounding
from suite.steps import Uniform


@dataclass(frozen=True)
class Apot(LearnedMethod):
    """first_last_inputs: bits of the inputs of the first and the last layer, 32 for float; first_last: of their
    weights. weight_lr, input_lr: times the learning rate, for the alphas; alpha_weight_decay: theirs."""

    first_last_inputs: int | None = FLOAT_BITS
    weight_lr: float = 0.5
    input_lr: float = 2.5
    alpha_weight_decay: float = 1e-4

    name: ClassVar[str] = "apot"

    @property
    def weights(self) -> Uniform:
        return Rounding(lr_scale=self.weight_lr, weight_decay=self.alpha_weight_decay)

    @property
    def inputs(self) -> Uniform:
        return Rounding(
            of="inputs", unsigned=True, lr_scale=self.input_lr, weight_decay=self.alpha_weight_decay
        )
