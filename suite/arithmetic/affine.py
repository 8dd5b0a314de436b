"""All the arithmetic of a grid: x ~ (q - zero_point) * scale, q an integer in quant_min..quant_max.

Rounding is half to even. The forward pass is bit-equal to torch.fake_quantize_per_tensor_affine and
..._per_channel_affine: multiplied by the reciprocal of the scale, not divided by the scale, which would be a
whole step off at ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suite.recipe.errors import check_bits, not_finite


@dataclass(frozen=True)
class Grid:
    """The integers that a tensor of `bits` may take; `narrow` leaves out the lowest, so that it is symmetric."""

    bits: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        check_bits("bits", self.bits)

    @property
    def quant_min(self) -> int:
        """The lowest integer: -2^(bits-1) where signed, else 0; one more where narrow."""
        return (-(1 << (self.bits - 1)) if self.signed else 0) + self.narrow

    @property
    def quant_max(self) -> int:
        """The highest integer: 2^(bits-1) - 1 where signed, else 2^bits - 1."""
        return (1 << (self.bits - self.signed)) - 1

    def symmetric(
        self, amax: Tensor, steps: int | None = None, checked: bool = True
    ) -> tuple[Tensor, Tensor]:
        """(scale, zero_point) that put `amax` >= 0 on `steps`, by default quant_max, and zero on 0.

        At 8 bits that is NVIDIA's amax/127; steps=128 is the amax/128 of other texts, whose amax is clipped.
        Shapes: those of `amax`. An amax of 0 gives the smallest normal scale, the largest float32 one whose multiples
        are finite. Raises SuiteError for inf and NaN, unless `checked` is off: a check waits for the device.
        """
        steps = steps or self.quant_max
        scale = (amax.float() / steps).clamp_min(_TINY)
        if checked:
            scale = _finite(scale, steps)
        return scale, torch.zeros_like(scale)

    def affine(self, low: Tensor, high: Tensor, checked: bool = True) -> tuple[Tensor, Tensor]:
        """(scale, zero_point) that spread low..high, widened to hold 0, over the grid; zero is exact.

        The zero_point is rounded and clamped to the grid, as in torch.ao's affine observers. `checked` as above, and a
        range that is wider than the largest float32 is refused too.
        """
        low, high = low.float().clamp_max(0), high.float().clamp_min(0)
        steps = self.quant_max - self.quant_min
        scale = ((high - low) / steps).clamp_min(_TINY)
        if checked:
            scale = _finite(scale, steps)
        zero_point = (self.quant_min - torch.round(low / scale)).clamp(self.quant_min, self.quant_max)
        return scale, zero_point

    def limits(self, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of the grid in real units; what lies beyond them is clipped. Shapes: those of `scale`."""
        return (self.quant_min - zero_point) * scale, (self.quant_max - zero_point) * scale


_TINY = torch.finfo(torch.float32).tiny
_HUGE = torch.finfo(torch.float32).max * (1 - 2**-23)


def _finite(scale: Tensor, steps: int) -> Tensor:
    """`scale`, made slightly smaller where rounding would have put the last of `steps` beyond float32."""
    if not scale.isfinite().all():
        raise not_finite("a range to quantize is wider than float32 can hold, or")
    return scale.clamp_max(_HUGE / steps)


def by_channel(value: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """`value`, [] or one a channel of `axis` (shape [x.shape[axis]]), in a shape that combines with `x`."""
    if axis is None or value.dim() == 0:
        return value
    return value.reshape([-1 if dim == axis % x.dim() else 1 for dim in range(x.dim())])


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
) -> Tensor:
    """`x` rounded to the grid and mapped back, in the shape and dtype of `x`.

    scale and zero_point: one value, or one a channel of `axis` (shape [x.shape[axis]]); no zero_point is 0. Computed
    in float32; an end of the grid beyond half precision becomes its largest value. What is infinite goes to
    an end of the grid, NaN stays. The gradient (straight-through estimator) is 1 where the rounded integer lies in the
    grid, else 0.
    """
    scale = by_channel(scale, x, axis)
    zero_point = None if zero_point is None else by_channel(zero_point, x, axis)
    result: Tensor = _FakeQuantize.apply(x, scale, zero_point, quant_min, quant_max)  # type: ignore[no-untyped-call]
    return result


class _FakeQuantize(torch.autograd.Function):
    """In place wherever it can be, and without booleans, which a CPU makes slowly: what clipping cut off, zero inside
    the grid, serves as the mask."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, quant_min: int, quant_max: int
    ) -> Tensor:
        q = (x.float() * scale.reciprocal()).round_()
        if zero_point is not None:
            q.add_(zero_point)
        if ctx.needs_input_grad[0]:
            clipped = q.clamp(quant_min, quant_max)
            ctx.save_for_backward(q.sub_(clipped).to(x.dtype))
        else:
            clipped = q.clamp_(quant_min, quant_max)
        if zero_point is not None:
            clipped.sub_(zero_point)
        clipped.mul_(scale)
        return in_dtype(clipped, x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        (cut_off,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad[0], cut_off, -0.5, 0.5), None, None, None, None


def in_dtype(rounded: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 values, overwritten or not, in another dtype; those beyond half precision become its largest."""
    if dtype == torch.float16:  # bfloat16 reaches as far as float32
        rounded = rounded.clamp_(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return rounded.to(dtype)
