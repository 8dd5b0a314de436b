"""EWGS (arXiv 2104.00903): a gradient that grows where it pushes a value towards the rounded one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid, in_dtype
from suite.arithmetic.cache_blocks import in_cache_blocks
from suite.learned.quantizer import LearnedQuantizer, positive


class Ewgs(LearnedQuantizer):
    """2^bits even levels between `low` and `high`, which learn: x ~ first + span * round(clamped (x - low) / (high -
    low)), with the first range kept, so that what the layer gets stays in its units."""

    LEARNED: ClassVar[tuple[str, ...]] = ("low", "high")
    SIGNED: ClassVar[tuple[str, ...]] = ("low", "high")
    low: Tensor
    high: Tensor
    first: Tensor
    span: Tensor

    scaling = 1e-3
    """Of the gradient; 0 is the straight-through estimator."""

    def begin(self) -> None:
        amax = self.scale * self.grid.quant_max
        low = -amax if self.grid.signed else torch.zeros_like(amax)
        self.grid = Grid(self.grid.bits, signed=False)
        for name, value in {"low": low, "high": amax, "first": low, "span": amax - low}.items():
            self.register_buffer(name, value.clone())
        self._set_levels()

    def end(self) -> None:
        self._set_levels()

    def _set_levels(self) -> None:
        self.scale = self.span / self.grid.quant_max
        self.zero_point = -self.first / self.scale

    def rounded(self, x: Tensor) -> Tensor:
        return ewgs(x, self.low, self.high, self.first, self.span, self.grid.quant_max, self.scaling)


class EwgsWeight(Ewgs):
    """A weight: the levels go from -gain to gain, and gain learns. The authors scale the layer's output instead."""

    LEARNED: ClassVar[tuple[str, ...]] = ("low", "high", "gain")
    gain: Tensor

    def begin(self) -> None:
        super().begin()
        self.register_buffer("gain", self.high.clone())
        self.first, self.span = torch.full_like(self.high, -1.0), torch.full_like(self.high, 2.0)

    def _set_levels(self) -> None:
        gain = self.in_effect("gain") if hasattr(self, "gain") else self.high
        self.scale = 2 * gain / self.grid.quant_max
        self.zero_point = torch.full_like(self.scale, self.grid.quant_max / 2)

    def rounded(self, x: Tensor) -> Tensor:
        return in_dtype(super().rounded(x.float()) * self.in_effect("gain"), x.dtype)


def ewgs(
    x: Tensor, low: Tensor, high: Tensor, first: Tensor, span: Tensor, steps: int, scaling: float
) -> Tensor:
    """first + span * q, q = round(c * steps) / steps and c = clamp((x - low) / |high - low|, 0, 1); the dtype of `x`.

    The gradient g that reaches c is that of q times 1 + scaling * sign(g) * (c - q); with a scaling of 0 it is the
    straight-through estimator's. All but `x`: float32 []; first and span get none.
    """
    result: Tensor = _Ewgs.apply(x, low, positive(high - low), first, span, steps, scaling)  # type: ignore[no-untyped-call]
    return result


class _Ewgs(torch.autograd.Function):
    """It keeps `x`, which its maker keeps too, and computes the rest again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        low: Tensor,
        size: Tensor,
        first: Tensor,
        span: Tensor,
        steps: int,
        scaling: float,
    ) -> Tensor:
        ctx.save_for_backward(x, low, size, span)
        ctx.steps, ctx.scaling = steps, scaling

        def rounded(x: Tensor) -> Tensor:
            q = _part(x, low, size).clamp_(0, 1).mul_(steps).round_().mul_(span / steps).add_(first)
            return in_dtype(q, x.dtype)

        result: Tensor = in_cache_blocks(rounded, x)
        return result

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, size, span = ctx.saved_tensors
        steps, scaling = ctx.steps, -ctx.scaling

        def gradients(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            part, g = _part(x, low, size), g.float() * span
            clamped = part.clamp(0, 1)
            lost = (clamped * steps).round_().div_(steps).sub_(clamped)  # q - c
            g = torch.addcmul(g, lost, g.abs(), value=scaling)  # g * sign(g) is its magnitude
            passed = torch.ops.aten.hardtanh_backward(g, part, 0, 1)
            passed /= size
            return passed.to(x.dtype), passed.sum(), (passed * clamped).sum()

        passed, all_of_it, by_part = in_cache_blocks(gradients, x, grad[0])
        return passed, -all_of_it, -by_part, None, None, None, None


def _part(x: Tensor, low: Tensor, size: Tensor) -> Tensor:
    return (x.float() - low).div_(size)
