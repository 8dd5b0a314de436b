"""Quantization-aware training, symmetric (source 001).

    q = clamp(round(x * 127 / amax), -128, 127);  x ~ q * amax / 127       at 8 bits

All else is as in `qat_asymmetric`. Where the source misleads, besides: its text divides by 128 (`divide_by_128`), its
code by 127.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from suite.methods.qat_asymmetric import QatAsymmetric
from suite.steps import Uniform
from suite.steps.rounding import Range


@dataclass(frozen=True)
class QatSymmetric(QatAsymmetric):
    """Trains on with `feed`, by default in float32 as the source does; 2 to 16 bits."""

    divide_by_128: bool = False

    name: ClassVar[str] = "qat_symmetric"

    def rounding(self, range: Range, **how: Any) -> Uniform:
        """On the signed grid, zero in its middle."""
        return Uniform(range, grid="signed", power_of_two=self.divide_by_128, **how)
