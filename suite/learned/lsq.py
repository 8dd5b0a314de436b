"""LSQ (arXiv 1902.08153): a step size that learns, by a gradient of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid, by_channel, in_dtype
from suite.arithmetic.cache_blocks import in_cache_blocks
from suite.learned.quantizer import LearnedQuantizer


class Lsq(LearnedQuantizer):
    """LSQ: a step size that learns, one for the tensor or one for each channel of `axis`."""

    def begin(self) -> None:
        self.grid = replace(self.grid, narrow=False)

    def rounded(self, x: Tensor) -> Tensor:
        scale = by_channel(self.in_effect("scale"), x, self.axis)
        return lsq(x, scale, self.grid, gradient_scale(x, self.grid, self.axis, self.of_weight))


def gradient_scale(x: Tensor, grid: Grid, axis: int | None, of_weight: bool) -> float:
    """1 / sqrt(N * quant_max), N the values that share a step: of a weight, or of one image's input.

    The size of the batch and its split over ranks leave it as it is.
    """
    count = x.numel() // (1 if axis is None else x.shape[axis]) if of_weight else math.prod(x.shape[1:])
    return 1 / math.sqrt(max(1, count) * grid.quant_max)


def lsq(x: Tensor, scale: Tensor, grid: Grid, gradient_scale: float, offset: Tensor | None = None) -> Tensor:
    """`x` rounded to integers of `grid` times `scale` > 0, plus `offset`, in the shape and dtype of `x`.

    scale: float32, broadcastable to `x`; offset: float32 [], no offset is 0. Without one, forward is bit-equal to
    `fake_quantize` without a zero point. Backward, with v = (x - offset) / scale, inside where it is between the ends
    of the grid:
        d/dx      1 inside, 0 outside
        d/dscale  (round(v) - v inside, the nearer end of the grid outside) * gradient_scale
        d/doffset (0 inside, 1 outside) * gradient_scale
    """
    result: Tensor = _Lsq.apply(x, scale, offset, grid.quant_min, grid.quant_max, gradient_scale)  # type: ignore[no-untyped-call]
    return result


class _Lsq(torch.autograd.Function):
    """It keeps `x`, which its maker keeps too, and computes the rest again: of memory, it takes the result alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        quant_min: int,
        quant_max: int,
        gradient_scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, offset)
        ctx.ends, ctx.gradient_scale = (quant_min, quant_max), gradient_scale

        def rounded(x: Tensor) -> Tensor:
            q = _steps(x, scale, offset).clamp_(quant_min, quant_max).round_().mul_(scale)
            return in_dtype(q if offset is None else q.add_(offset), x.dtype)

        return in_cache_blocks(rounded, x) if scale.dim() == 0 else rounded(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, offset = ctx.saved_tensors
        learns = ctx.needs_input_grad[1]

        def gradients(x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
            v, g = _steps(x, scale, offset), g.float()
            passed = torch.ops.aten.hardtanh_backward(
                g, v, *ctx.ends
            )  # 0 at the ends too, as the paper has it
            if not learns:
                return (passed.to(x.dtype),)
            clamped = v.clamp_(*ctx.ends)
            # Inside the grid passed is g, and this is the paper's g * (round(v) - v); outside, passed is 0 and the
            # rounded value the end.
            of_scale = clamped.round().mul_(g).addcmul_(passed, clamped, value=-1)
            by_scale = of_scale.sum_to_size(scale.shape) if scale.dim() else of_scale.sum()
            return passed.to(x.dtype), by_scale, *(() if offset is None else ((g - passed).sum(),))

        found = in_cache_blocks(gradients, x, grad[0]) if scale.dim() == 0 else gradients(x, grad[0])
        passed, *sums = found if isinstance(found, tuple) else (found,)
        scaled = [one * ctx.gradient_scale for one in sums]
        by_scale, by_offset, *_ = *scaled, None, None
        return passed, by_scale, by_offset, None, None, None


def _steps(x: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """A new float32 tensor: how many steps lie between each value and the offset."""
    x = x.float()
    return x * scale.reciprocal() if offset is None else (x - offset).mul_(scale.reciprocal())
