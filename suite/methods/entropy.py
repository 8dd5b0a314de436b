"""Post-training quantization by least loss of information (the "entropy" calibration of source 004's package).

No source has numbers for it. The range of each input is the one whose clipped histogram has the smallest
Kullback-Leibler divergence from its rounded self; all else is as in `mse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.mse import Mse
from suite.steps import Entropy as LeastLoss
from suite.steps.rounding import RangeOfHistogram


@dataclass(frozen=True)
class Entropy(Mse):
    """2 to 16 bits for weights and activations."""

    name: ClassVar[str] = "entropy"
    range: ClassVar[RangeOfHistogram] = LeastLoss()
