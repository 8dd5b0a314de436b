"""The affine range of least error of a weight: scale and zero point searched together, per channel or for all."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid, fake_quantize
from suite.ranges.observers import Dynamic

OCTAVE = 16
"""Scales tried in each of two octaves."""
AROUND = 2
"""Zero points tried on each side of that of the extremes: at 2 bits all of them."""


class AffineLeastError(Dynamic):
    """The range of least error |x - q|^power of the tensor seen last, for affine grids.

    For each zero point near that of the extremes, the scale of the extremes, and those from the one that clips nothing
    to a quarter of it. Where a grid has few integers, on which side of zero it has one more matters: 2 bits have -2..1
    or -1..2.
    """

    def __init__(self, axis: int | None = None, power: float = 2.4) -> None:
        super().__init__(axis)
        self.power = power

    def forward(self, x: Tensor) -> None:
        super().forward(x)
        self._x = x.detach().float()

    @torch.no_grad()
    def limits(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(low, high), float32 [] or [channels], both multiples of one scale."""
        low, high = self.low.float().clamp_max(0), self.high.float().clamp_min(0)
        usual, middle = grid.affine(low, high, checked=False)
        found = [torch.zeros_like(low), torch.zeros_like(high)]
        least = torch.full_like(low, torch.inf)
        for shift in range(-AROUND, AROUND + 1):
            zero = (middle + shift).clamp(grid.quant_min, grid.quant_max)
            below, above = grid.quant_min - zero, grid.quant_max - zero
            whole = torch.maximum(
                torch.where(below < 0, low / below.clamp_max(-1), 0.0),
                torch.where(above > 0, high / above.clamp_min(1), 0.0),
            )
            tried = [whole * 2.0 ** (-k / OCTAVE) for k in range(2 * OCTAVE + 1)]
            for scale in (usual, *tried):
                scale = scale.clamp_min(torch.finfo(torch.float32).tiny)
                error = self._error(grid, scale, zero)
                better = error < least
                least = torch.where(better, error, least)
                ends = below * scale, above * scale
                found = [torch.where(better, new, old) for new, old in zip(ends, found, strict=True)]
        # What holds inf or NaN has no error to compare, and is refused by its extremes.
        finite = self.low.isfinite() & self.high.isfinite()
        return torch.where(finite, found[0], self.low), torch.where(finite, found[1], self.high)

    def _error(self, grid: Grid, scale: Tensor, zero_point: Tensor) -> Tensor:
        rounded = fake_quantize(self._x, scale, zero_point, grid.quant_min, grid.quant_max, self.axis)
        error = rounded.sub_(self._x).abs_().pow_(self.power)
        return (
            error.sum() if self.axis is None else error.transpose(0, self.axis).reshape(len(scale), -1).sum(1)
        )
