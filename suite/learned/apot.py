"""APoT (arXiv 1909.13144): levels that are sums of powers of two, a table instead of an even grid."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from suite.arithmetic.affine import in_dtype
from suite.arithmetic.cache_blocks import in_cache_blocks
from suite.learned.lsq import lsq
from suite.learned.quantizer import LearnedQuantizer

UNIFORM_FROM = 8
"""Bits from which on a tensor has even levels, as the authors' first and last layer."""
WEIGHT_ALPHA, INPUT_ALPHA = 3.0, 8.0
"""What the authors clip at first: standard deviations of a weight, and an input."""


@cache
def levels(bits: int) -> tuple[float, ...]:
    """The 2^bits magnitudes from 0 to 1 of `bits`, in order.

    A level is the sum of one number of each term, divided by the largest sum. With n = bits // 2 there are n terms
    {0, 2^-i, 2^-(i + n), 2^-(i + 2n)}, i from 1 to n; where `bits` is odd one more, {0, 2^-(2n + 1)}, and the last
    exponent of the others is one more. Up to 6 bits these are the authors' own.
    """
    sums = _sums(bits)
    return tuple(one / sums[-1] for one in sums)


@cache
def _sums(bits: int) -> list[float]:
    n, odd = divmod(bits, 2)
    terms = [(0.0, 2.0**-i, 2.0 ** -(i + n), 2.0 ** -(i + 2 * n + odd)) for i in range(1, n + 1)]
    return sorted(map(sum, itertools.product(*terms, (0.0, 2.0 ** -(2 * n + 1)) if odd else (0.0,))))


class _Apot(LearnedQuantizer):
    """Clips at `alpha`, which learns, and takes the nearest of the levels below it, mirrored for negative values."""

    LEARNED: ClassVar[tuple[str, ...]] = ("alpha",)
    alpha: Tensor
    first_alpha: ClassVar[float]

    @property
    def is_uniform(self) -> bool:
        return self.grid.bits >= UNIFORM_FROM

    def begin(self) -> None:
        self.grid = replace(self.grid, narrow=self.grid.signed)
        if self.is_uniform:
            self.LEARNED = ()  # type: ignore[misc]
            return
        self.register_buffer("alpha", torch.full_like(self.scale, self.first_alpha))

    def end(self) -> None:
        if not self.is_uniform:
            self.scale = self.in_effect("alpha") / self.grid.quant_max

    @property
    def magnitude_bits(self) -> int:
        return self.grid.bits - self.grid.signed


class ApotInput(_Apot):
    """An input."""

    first_alpha = INPUT_ALPHA

    def rounded(self, x: Tensor) -> Tensor:
        if self.is_uniform:
            return lsq(x, self.scale, self.grid, 0.0)
        return apot(x, self.in_effect("alpha"), self.magnitude_bits, True, self.grid.signed)


class ApotWeight(_Apot):
    """A weight, of mean 0 and standard deviation 1 before it is rounded: BatchNorm undoes that.

    At 2 bits the levels are -alpha, 0 and alpha. From UNIFORM_FROM bits on it is neither normalized nor clipped: the
    authors divide it by its largest value, here by its largest magnitude.
    """

    first_alpha = WEIGHT_ALPHA

    def rounded(self, x: Tensor) -> Tensor:
        if self.is_uniform:
            amax = x.detach().float().abs().amax()
            return lsq(x, self.grid.symmetric(amax, checked=False)[0], self.grid, 0.0)
        std, mean = torch.std_mean(x.detach().float())
        normalized = (x.float() - mean) / std.clamp_min(torch.finfo(torch.float32).tiny)
        return apot(normalized, self.in_effect("alpha"), self.magnitude_bits, False).to(x.dtype)


def apot(x: Tensor, alpha: Tensor, bits: int, clips_gradient: bool, signed: bool = True) -> Tensor:
    """clamp(x / alpha, -1, 1) at the nearest of the `levels` of `bits` and their negatives, times alpha; the dtype of
    `x`; without `signed`, of values from 0 on.

    alpha: float32 [], above 0. d/dx is 1, and 0 beyond alpha where `clips_gradient`; with v = x / alpha, d/dalpha is
    sign(v) beyond it and else the rounded v minus v.
    """
    result: Tensor = _Nearest.apply(x, alpha, _cells(bits, x.device), clips_gradient, signed)  # type: ignore[no-untyped-call]
    return result


@cache
def _cells(bits: int, device: torch.device) -> Tensor:
    """The nearest level in each of equal cells from 0 to 1, so many that between two levels a cell ends, and one more
    for 1 itself. To look a value up in them is ten times as fast as to search the levels."""
    sums = _sums(bits)
    finest = min(one for one in sums if one)
    count = round(2 * sums[-1] / finest)
    values = torch.tensor(levels(bits))
    middle = (torch.arange(count + 1) + 0.5) / count
    return values[(middle[:, None] - values).abs().argmin(1)].to(device)


def _looked_up(v: Tensor, cells: Tensor) -> Tensor:
    """The level of each of `v` from 0 to 1, which is changed, in its memory format."""
    if not v.is_contiguous() and v.is_contiguous(memory_format=torch.channels_last):
        return _looked_up(v.permute(0, 2, 3, 1), cells).permute(0, 3, 1, 2)
    cell = v.mul_(len(cells) - 1).to(torch.int32).clamp_min_(0)  # of NaN
    return cells.index_select(0, cell.reshape(-1)).view(v.shape)


def _nearest(v: Tensor, cells: Tensor, signed: bool) -> Tensor:
    """The level of each of `v` from -1 to 1, from 0 where not `signed`; NaN of NaN."""
    q = _looked_up(v.abs() if signed else v.clone(), cells)
    return (q.copysign_(v) if signed else q).add_(v, alpha=0)  # 0 * NaN is NaN


class _Nearest(torch.autograd.Function):
    """It keeps `x`, which its maker keeps too, and computes the rest again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, cells: Tensor, clips_gradient: bool, signed: bool
    ) -> Tensor:
        ctx.save_for_backward(x, alpha, cells)
        ctx.clips_gradient, ctx.signed = clips_gradient, signed
        of_alpha, low = cells * alpha, -1 if signed else 0

        def rounded(x: Tensor) -> Tensor:
            v = (x.float() * alpha.reciprocal()).clamp_(low, 1)
            return in_dtype(_nearest(v, of_alpha, signed), x.dtype)

        result: Tensor = in_cache_blocks(rounded, x)
        return result

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, cells = ctx.saved_tensors

        def gradients(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
            v, g = x.float() * alpha.reciprocal(), g.float()
            passed = torch.ops.aten.hardtanh_backward(g, v, -1, 1)
            v.clamp_(-1, 1)
            # Inside, where passed is g, the rounded value less v; outside, where it is 0, the sign.
            by_alpha = _nearest(v, cells, ctx.signed).mul_(g).addcmul_(passed, v, value=-1)
            return (passed if ctx.clips_gradient else g).to(x.dtype), by_alpha.sum()

        passed, by_alpha = in_cache_blocks(gradients, x, grad[0])
        return passed, by_alpha, None, None, None
