"""PACT and DoReFa: clipping that learns (arXiv 1805.06085), and a fixed range after tanh (arXiv 1606.06160)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid, in_dtype
from suite.arithmetic.cache_blocks import in_cache_blocks
from suite.learned.lsq import lsq
from suite.learned.quantizer import LearnedQuantizer


class Pact(LearnedQuantizer):
    """An input clipped at `alpha`, which learns, and rounded to quant_max steps below it.

    One that may be negative, which the paper has not, is clipped at -alpha too.
    """

    LEARNED: ClassVar[tuple[str, ...]] = ("alpha",)
    alpha: Tensor

    def begin(self) -> None:
        self.register_buffer("alpha", self.scale * self.grid.quant_max)

    def end(self) -> None:
        self.scale = self.in_effect("alpha") / self.grid.quant_max

    def rounded(self, x: Tensor) -> Tensor:
        return pact(x, self.in_effect("alpha"), self.grid)


def pact(x: Tensor, alpha: Tensor, grid: Grid) -> Tensor:
    """round(clamp(x, 0, alpha) * n / alpha) * alpha / n, n the quant_max of `grid`; from -alpha where it is signed.

    alpha: float32 [], above 0. d/dx is 1 inside and 0 outside; d/dalpha is sign(x) outside and, other than LSQ's, 0
    inside.
    """
    signed = grid.quant_min < 0
    result: Tensor = _Pact.apply(x, alpha, -grid.quant_max if signed else 0, grid.quant_max)  # type: ignore[no-untyped-call]
    return result


class _Pact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.ends = low, high
        scale = alpha / high

        def rounded(x: Tensor) -> Tensor:
            return in_dtype((x.float() * scale.reciprocal()).clamp_(low, high).round_().mul_(scale), x.dtype)

        result: Tensor = in_cache_blocks(rounded, x)
        return result

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha = ctx.saved_tensors
        low, high = ctx.ends

        def gradients(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
            v, g = x.float() * (alpha / high).reciprocal(), g.float()
            passed = torch.ops.aten.hardtanh_backward(g, v, low, high)
            # Outside the grid v / high clamped is -1, 0 or 1: what alpha is multiplied by there.
            return passed.to(x.dtype), ((g - passed) * v.clamp_(low, high)).sum()

        passed, by_alpha = in_cache_blocks(gradients, x, grad[0])
        return passed, by_alpha / high, None, None


class DorefaInput(LearnedQuantizer):
    """An input clipped to 0..1. One that may be negative, such as an image, keeps its calibrated range."""

    LEARNED: ClassVar[tuple[str, ...]] = ()

    def begin(self) -> None:
        if not self.grid.signed:
            self.scale = torch.full_like(self.scale, 1 / self.grid.quant_max)

    def rounded(self, x: Tensor) -> Tensor:
        return lsq(x, self.scale, self.grid, 0.0)


class DorefaWeight(LearnedQuantizer):
    """A weight on 2^bits even levels from -1 to 1, none of them zero, by tanh."""

    LEARNED: ClassVar[tuple[str, ...]] = ()

    def begin(self) -> None:
        self.grid = Grid(self.grid.bits, signed=False)
        self.scale = torch.full_like(self.scale, 2 / self.grid.quant_max)
        self.zero_point = torch.full_like(self.scale, self.grid.quant_max / 2)

    def rounded(self, x: Tensor) -> Tensor:
        return dorefa_weight(x, self.grid.quant_max)


def dorefa_weight(w: Tensor, steps: int) -> Tensor:
    """2 * round((tanh(w) / (2 * max|tanh(w)|) + 1/2) * steps) / steps - 1, in the dtype of `w`.

    The gradient is that of the formula without its rounding, tanh differentiated and its maximum taken as it is.
    """
    bent = torch.tanh(w.float())
    largest = bent.detach().abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    even: Tensor = _Round.apply((bent / (2 * largest) + 0.5) * steps)  # type: ignore[no-untyped-call]
    return (2 * even / steps - 1).to(w.dtype)


class _Round(torch.autograd.Function):
    """Rounding whose gradient is 1 (straight-through estimator)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        return grad[0]
