"""Post-training quantization by least loss of information (the "entropy" calibration of source 004's package).

No source has numbers for it. The range of each input is the one whose clipped histogram has the smallest
Kullback-Leibler divergence from its rounded self; all else is as in `mse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from suite.methods.mse import Mse

if TYPE_CHECKING:
    from torch import Tensor

    from suite.quantize.histogram import Histograms


@dataclass(frozen=True)
class Entropy(Mse):
    """2 to 16 bits for weights and activations."""

    name: ClassVar[str] = "entropy"

    def amax(self, seen: Histograms, bits: Sequence[int]) -> Tensor:
        """float32 [L, widths]: of each layer at each width."""
        from suite.quantize.range_search import entropy

        return entropy(seen, bits, unsigned=True)
