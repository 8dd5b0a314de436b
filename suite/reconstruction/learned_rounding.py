"""Roundings that are learned: of a weight, which way each element goes; of an activation, how long a step is.

Both replace the quantizer of a layer for a while. A hardened LearnedRounding may stay: it rounds as it learned to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import by_channel, in_dtype
from suite.quantizers.quantizer import Quantizer
from suite.ranges.observers import Dynamic
from suite.recipe.errors import SuiteError

ZETA, GAMMA = 1.1, -0.1
"""The rectified sigmoid is stretched to these ends, so that it reaches 0 and 1 (AdaRound, arXiv 2004.10568)."""


class LearnedRounding(Quantizer):
    """A weight's rounding down or up, each element's own (AdaRound, arXiv 2004.10568, equation 23).

        x ~ (clamp(floor(w / scale) + zero_point + h, quant_min, quant_max) - zero_point) * scale
        h = clamp(sigmoid(alpha) * (zeta - gamma) + gamma, 0, 1)

    `alpha` starts so that h is the fraction that floor cut off: x is w, where the range does not clip it. After
    `harden`, h is 0 or 1 and alpha is gone. With `learn_scale` the scale learns too, by the logarithm of a factor,
    while what floor gave stays (Genie, Jeon et al. 2023, arXiv 2212.04780).
    """

    base: Tensor
    up: Tensor

    def __init__(self, quantizer: Quantizer, weight: Tensor) -> None:
        """Of a `quantizer` that has its range."""
        axis = quantizer.axis
        super().__init__(quantizer.grid, Dynamic(axis), "frozen", quantizer.symmetric, axis)
        self.observer = None
        self.scale, self.zero_point = quantizer.scale, quantizer.zero_point
        with torch.no_grad():
            ratio = weight.float() / by_channel(self.scale, weight, axis)
            base = ratio.floor()
            fraction = ratio - base
            alpha = -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)
        self.register_buffer("base", base + by_channel(self.zero_point, weight, axis))
        self.register_buffer("up", (fraction >= 0.5).to(torch.uint8))
        self.alpha: nn.Parameter | None = nn.Parameter(alpha)
        self.log_factor: nn.Parameter | None = None
        """Of the scale, in its shape, where it learns."""
        self.h: Tensor | None = None
        """Of the last forward pass, so that the regularizer need not compute it again."""

    def learn_scale(self) -> None:
        """From now on the scale learns."""
        self.log_factor = nn.Parameter(torch.zeros_like(self.scale))

    @property
    def present_scale(self) -> Tensor:
        """The scale as it was learned so far."""
        return self.scale if self.log_factor is None else self.scale * self.log_factor.exp()

    def soft(self) -> Tensor:
        """h, of the shape of the weight. Before `harden`."""
        assert self.alpha is not None
        return (self.alpha.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def integers(self) -> Tensor:
        """What the weight is rounded to: integers once hardened."""
        self.h = None if self.alpha is None else self.soft()
        return (self.base + (self.up if self.h is None else self.h)).clamp(
            self.grid.quant_min, self.grid.quant_max
        )

    def forward(self, x: Tensor) -> Tensor:
        """The rounded weight, in the dtype of `x`, which is the weight that it was made of."""
        parts = self.present_scale, self.zero_point
        scale, zero_point = (by_channel(part, x, self.axis) for part in parts)
        return in_dtype((self.integers() - zero_point) * scale, x.dtype)

    def settled(self, x: Tensor) -> Tensor:
        result: Tensor = self(x)
        return result

    @torch.no_grad()
    def harden(self) -> LearnedRounding:
        """Itself, from now on rounding each element as it learned to. Raises SuiteError where that is inf or NaN."""
        assert self.alpha is not None
        if not self.alpha.isfinite().all():
            raise SuiteError("the learned rounding became inf or NaN; use a lower learning rate")
        return self.hardened(self.soft() >= 0.5)

    @torch.no_grad()
    def hardened(self, up: Tensor) -> LearnedRounding:
        """Itself, from now on rounding up where `up`, of the weight's shape, is not 0, and down elsewhere.

        Raises SuiteError where a weight is no integer of the width then.
        """
        self.up, self.alpha, self.h = up.to(self.up.device, torch.uint8), None, None
        self.scale, self.log_factor = self.present_scale, None
        q, grid = self.integers(), self.grid
        if not ((q == q.round()) & (q >= grid.quant_min) & (q <= grid.quant_max)).all():
            raise SuiteError(f"a rounded weight is no integer of {grid.quant_min}..{grid.quant_max}")
        return self

    def regularizer(self, beta: float) -> Tensor:
        """The sum of 1 - |2h - 1|^beta: 0 where each h is 0 or 1 (equation 24). Of the last forward pass, if any."""
        h = self.soft() if self.h is None else self.h
        result: Tensor = _Regularizer.apply(h, beta)  # type: ignore[no-untyped-call]
        return result


class _Regularizer(torch.autograd.Function):
    """The sum of 1 - |2h - 1|^beta; one power serves the value and the gradient."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, beta: float) -> Tensor:
        signed = 2 * h - 1
        power = signed.abs().pow_(beta - 1).copysign_(signed)
        ctx.save_for_backward(power)
        ctx.beta = beta
        return h.numel() - dot(power, signed)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        (power,) = ctx.saved_tensors
        return power * (-2 * ctx.beta * grad[0]), None


class LearnedStep(nn.Module):
    """A quantizer of an activation whose step is learned (LSQ, arXiv 1902.08153), and which lets part of the elements
    pass unrounded (QDrop, arXiv 2203.05740).

    The step is exp(log_factor) times the quantizer's own, so that a learning rate means the same for all; the zero
    point stays. `kept` gives for an input 1 for each element that is rounded and 0 for one that passes, in its shape
    and dtype; without it all are rounded.
    """

    def __init__(self, quantizer: Quantizer, kept: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.quantizer, self.kept = quantizer, kept
        self.log_factor = nn.Parameter(torch.zeros_like(quantizer.scale))
        grid, zero = quantizer.grid, float(quantizer.zero_point)
        self.ends = grid.quant_min - zero, grid.quant_max - zero

    @property
    def scale(self) -> Tensor:
        """The learned step."""
        return self.quantizer.scale * self.log_factor.exp()

    def forward(self, x: Tensor) -> Tensor:
        kept = self.kept(x) if self.kept else None
        result: Tensor = _RoundSome.apply(x, self.scale, *self.ends, kept)  # type: ignore[no-untyped-call]
        return result


class _RoundSome(torch.autograd.Function):
    """The forward pass is that of `fake_quantize`, bit by bit, where an element is kept, and x elsewhere. Few passes
    over the tensor, each a vector operation: this is most of the time of a reconstruction."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        low: float,
        high: float,
        kept: Tensor | None,
    ) -> Tensor:
        ratio = x * scale.reciprocal()
        q = ratio.clamp(low, high).round_()
        ctx.save_for_backward(ratio, q, kept)
        rounded = q * scale
        return rounded if kept is None else mixed(x, rounded, kept)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        ratio, q, kept = ctx.saved_tensors
        (by_y,) = grad
        by_rounded = by_y if kept is None else by_y * kept
        # Inside the grid what rounding moved is less than half a step.
        inside = torch.ops.aten.hardtanh_backward(by_rounded, q - ratio, -0.5, 0.5)
        by_scale = dot(by_rounded, q) - dot(inside, ratio)
        by_x = inside if kept is None else inside.add_(by_y).sub_(by_rounded)
        return by_x, by_scale, None, None, None


def mixed(x: Tensor, y: Tensor, kept: Tensor) -> Tensor:
    """`y` where `kept` is 1 and `x` where it is 0, bit by bit, in one pass: lerp adds 0 * (y - x) there."""
    return torch.lerp(x, y, kept)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """The sum of x * y, a scalar, in float32; in one pass where both lie in memory in the same order."""
    if x.stride() == y.stride() and x.dtype == y.dtype == torch.float32:
        for order in (torch.contiguous_format, torch.channels_last):
            if x.is_contiguous(memory_format=order):
                flat = (x.as_strided((x.numel(),), (1,)), y.as_strided((y.numel(),), (1,)))
                return torch.dot(*flat)
    return (x * y).sum(dtype=torch.float32)


class SquaredError(torch.autograd.Function):
    """The squared error of `y`, a scalar: summed over channels, dimension 1, mean over the others; each element's
    counts `weight` times, where that is given. Differentiable by `y`, in few passes over the tensor."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        error = y - target
        weighted = error if weight is None else error * weight
        ctx.save_for_backward(weighted)
        ctx.per = error.shape[1] / error.numel()
        per: float = ctx.per
        return dot(error, weighted) * per

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        (weighted,) = ctx.saved_tensors
        return weighted * (2 * ctx.per * grad[0]), None, None
