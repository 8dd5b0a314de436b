"""LSQ+ (arXiv 2004.09576): an offset learns beside the step size, x ~ round((x - offset) / scale) * scale + offset."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid
from suite.learned.lsq import gradient_scale, lsq
from suite.learned.quantizer import LearnedQuantizer
from suite.ranges.observers import Dynamic


class LsqPlus(LearnedQuantizer):
    """One step size and one offset for the tensor; the zero_point that remains is no whole number."""

    LEARNED: ClassVar[tuple[str, ...]] = ("scale", "offset")
    offset: Tensor

    SIGNED: ClassVar[tuple[str, ...]] = ("offset",)
    SYMMETRIC = False

    def begin(self) -> None:
        self.register_buffer("offset", -self.zero_point * self.scale)

    def end(self) -> None:
        self.zero_point = -self.offset / self.scale

    def rounded(self, x: Tensor) -> Tensor:
        factor = gradient_scale(x, self.grid, None, self.of_weight)
        return lsq(x, self.in_effect("scale"), self.grid, factor, self.offset)


class Deviations(Dynamic):
    """LSQ+'s first range of a weight: -r..r with r = max(|mean - k std|, |mean + k std|), of the tensor seen last."""

    def __init__(self, axis: int | None = None, k: float = 3.0) -> None:
        super().__init__(axis)
        self.k = k

    def forward(self, x: Tensor) -> None:
        super().forward(x)
        x = x.detach().float()
        rows = x.reshape(1, -1) if self.axis is None else x.transpose(0, self.axis).flatten(1)
        std, mean = torch.std_mean(rows, dim=1, correction=0)
        self._amax = mean.abs() + self.k * std
        if self.axis is None:
            self._amax = self._amax.squeeze()

    def limits(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(-amax, amax), NaN where a value is not finite; the paper divides it by 2^(bits-1), which is -quant_min."""
        amax = self._amax * (grid.quant_max / -grid.quant_min)
        return -amax, amax
