"""LSQ's first step size (arXiv 1902.08153), 2 * mean|x| / sqrt(quant_max): of a tensor, and of histograms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid
from suite.ranges.histogram import PATTERNS, Histograms
from suite.ranges.observers import Dynamic


class MeanMagnitude(Dynamic):
    """LSQ's first step size, 2 * mean|x| / sqrt(quant_max), of the tensor seen last."""

    def forward(self, x: Tensor) -> None:
        super().forward(x)
        magnitude = x.detach().float().abs()
        dims = [dim for dim in range(x.dim()) if dim != self.axis]
        self._mean = magnitude.mean() if self.axis is None or not dims else magnitude.mean(dims)

    def limits(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(-amax, amax) with amax the step size times quant_max; NaN where an extreme is not finite."""
        amax = self._mean * (2 * math.sqrt(grid.quant_max))
        return -amax, amax


def mean_magnitude(seen: Histograms, bits: list[int], unsigned: bool) -> Tensor:
    """float32 [L, widths]: quant_max times the same first step size, 2 * mean|x| / sqrt(quant_max), of what was seen.

    unsigned: layers without a negative value are rounded to 0..2^bits - 1.
    """
    patterns = torch.arange(PATTERNS // 2, dtype=torch.int32, device=seen.counts.device) << 16
    values = patterns.view(torch.float32).double()
    counts = seen.magnitudes
    finite = values.isfinite()
    mean = (counts[:, finite] * values[finite]).sum(1) / counts.sum(1)
    free = (seen.low >= 0) & unsigned
    ends = [[Grid(width, signed=not one).quant_max for width in bits] for one in free.tolist()]
    largest = torch.tensor(ends, dtype=torch.float64, device=mean.device)
    return (2 * mean[:, None] * largest.sqrt()).float()
