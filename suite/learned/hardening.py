"""Weights that move to their levels as training goes on: PARQ and BinaryRelax.

The levels are those of a binary expansion with least squares, greedy (Guo et al. 2017), found anew whenever a weight
is rounded. Both pass the gradient of the rounded weight on to the weight unchanged.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import in_dtype
from suite.learned.lsq import lsq
from suite.learned.quantizer import LearnedQuantizer, positive

UNIFORM_FROM = 8
"""Bits from which on a weight has even levels: a binary expansion of as many terms is no better."""


class Hardening(LearnedQuantizer):
    """A weight that is itself when training begins and on its levels when `progress`, the part of the training that is
    done, reaches `until`."""

    LEARNED: ClassVar[tuple[str, ...]] = ()
    progress: Tensor
    until = 1.0

    @property
    def is_uniform(self) -> bool:
        return self.grid.bits >= UNIFORM_FROM

    def begin(self) -> None:
        if "progress" not in self._buffers:
            self.register_buffer("progress", torch.zeros_like(self.scale))

    def rounded(self, x: Tensor) -> Tensor:
        if self.is_uniform:
            amax = x.detach().float().abs().amax()
            return lsq(x, self.grid.symmetric(amax, checked=False)[0], self.grid, 0.0)
        w = x.detach().float()
        moved: Tensor = _Straight.apply(x, in_dtype(self.moved(w, binary_levels(w, self.grid.bits)), x.dtype))  # type: ignore[no-untyped-call]
        return moved

    def moved(self, w: Tensor, levels: Tensor) -> Tensor:
        """The float32 weight `w` as far on its way to `levels`, float32 [n] in order, as `progress` says."""
        raise NotImplementedError

    @property
    def part(self) -> Tensor:
        """How far from float, 0, to its levels, 1: float32 []."""
        return (self.progress / self.until).clamp(max=1)

    def settled(self, x: Tensor) -> Tensor:
        """`x` on its levels."""
        self.progress.fill_(1.0)
        largest = x.detach().float().abs().amax() if self.is_uniform else binary_levels(x, self.grid.bits)[-1]
        self.scale = positive(largest / self.grid.quant_max)
        return super().settled(x)


class Parq(Hardening):
    """PARQ (arXiv 2503.15748): a piecewise affine map whose slope between two levels grows from 1 to infinity, the
    inverse of the slope by a sigmoid of this `steepness` over the training."""

    steepness = 100.0

    def moved(self, w: Tensor, levels: Tensor) -> Tensor:
        return parq(w, levels, inverse_slope(self.part, self.steepness))


class BinaryRelax(Hardening):
    """BinaryRelax (arXiv 1801.06313): a mean of the weight and its nearest level, whose share grows from 0 to 1."""

    def moved(self, w: Tensor, levels: Tensor) -> Tensor:
        return torch.lerp(w, nearest(w, levels), self.part)


def binary_levels(w: Tensor, bits: int) -> Tensor:
    """The 2^bits sums of -v or v over `bits` values v, float32, in order; v is the mean magnitude of what the values
    before it leave of `w`."""
    left, levels = w.detach().float(), torch.zeros(1, device=w.device)
    for _ in range(bits):
        v = left.abs().mean()
        left = left - torch.where(left < 0, -v, v)
        levels = torch.cat([levels - v, levels + v])
    return levels.sort().values


def inverse_slope(part: Tensor, steepness: float) -> Tensor:
    """1 where `part` of the way is 0, 0 where it is 1, by a sigmoid about the middle; in the shape of `part`."""
    first, last = (1 / (1 + math.exp(-end * steepness)) for end in (0.5, -0.5))
    falling = (torch.sigmoid(steepness * (0.5 - part)) - last) / (first - last)
    return torch.where(part < 1, falling.clamp(torch.finfo(torch.float32).tiny, 1), 0.0)


def parq(w: Tensor, levels: Tensor, inverse_slope: Tensor) -> Tensor:
    """`w` mapped between the two `levels` about it, by a line through their middle that is clipped at both; beyond the
    last level that level. An inverse slope of 1 changes nothing between the outer levels, of 0 gives the nearest.
    """
    low, high = _neighbours(w, levels)
    middle = (low + high) / 2
    soft = (middle + (w - middle) / inverse_slope).clamp(low, high)
    return torch.where(inverse_slope > 0, soft, torch.where(w > middle, high, low))


def nearest(w: Tensor, levels: Tensor) -> Tensor:
    """The nearest of the `levels`, of two the lower."""
    low, high = _neighbours(w, levels)
    return torch.where(w > (low + high) / 2, high, low)


def _neighbours(w: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The level below each value, or equal to it, and the one above; outside of all the last one twice."""
    above = torch.bucketize(w.contiguous(), levels)
    return levels[(above - 1).clamp_min(0)], levels[above.clamp_max(len(levels) - 1)]


def hardened_parts(model: nn.Module) -> list[float]:
    """How far each weight of `model` that hardens is on its way to its levels, 1 where it is on them."""
    return [float(module.part) for module in model.modules() if isinstance(module, Hardening)]


def hardening(model: nn.Module) -> list[Tensor]:
    """The `progress` of each weight of `model` that hardens."""
    return [module.progress for module in model.modules() if isinstance(module, Hardening)]


class _Straight(torch.autograd.Function):
    """Its second argument, with the gradient for the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, moved: Tensor) -> Tensor:
        return moved.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[0], None
