"""Post-training quantization by least loss of information (the "entropy" calibration of source 004's package).

No source has numbers for it. The range of each input is the one whose clipped histogram has the smallest
Kullback-Leibler divergence from its rounded self; all else is as in `mse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.methods.mse import Mse

if TYPE_CHECKING:
    from torch import Tensor

    from suite.observation import Observation


@dataclass(frozen=True)
class Entropy(Mse):
    """2 to 16 bits for weights and activations."""

    def amax(self, seen: Observation, bits: Sequence[int]) -> Tensor:
        """float32 [L, widths]: of each layer at each width."""
        from suite.ranges import entropy

        return entropy(seen, bits, unsigned=True)
