"""Arithmetic in integers alone, as source 002's paper has it (Jacob et al. 2017, arXiv 1712.05877).

A real multiplier becomes an integer of 31 bits and a shift, accumulators are integers of a fixed width, and what does
not fit into them is counted. Products are summed in float64, which holds every integer up to 2^53.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suite.arithmetic.affine import by_channel
from suite.recipe.errors import SuiteError

MANTISSA_BITS = 31
MOST_SHIFT = 62
ADD_SHIFT = 20
"""The most bits by which the operands of an addition are shifted before they are rescaled, as in TensorFlow Lite."""


@dataclass(frozen=True)
class Multiplier:
    """Real factors as integers: a factor is about mantissa * 2^-shift, off by at most 2^-31 of itself.

    Both int64, [] or one a channel; |mantissa| is 0 or from 2^30 to 2^31, but smaller where the factor is below
    2^-32, since a shift has at most 62 bits.
    """

    mantissa: Tensor
    shift: Tensor

    @classmethod
    def of(cls, factor: Tensor) -> Multiplier:
        """Of finite real factors below 2^30. Raises SuiteError for others."""
        if not factor.isfinite().all() or bool((factor.abs() >= 2.0**30).any()):
            raise SuiteError(
                f"a factor between two scales is {float(factor.abs().max()):.3g}, but must be below 2^30; "
                f"one of the scales is wrong by far: calibrate again"
            )
        part, exponent = torch.frexp(factor.double())
        mantissa = torch.round(part * 2.0**MANTISSA_BITS).to(torch.int64)
        shift = MANTISSA_BITS - exponent.to(torch.int64)
        lost = (shift - MOST_SHIFT).clamp_min(0)
        return cls(mantissa >> lost.clamp_max(MOST_SHIFT), shift - lost)

    @property
    def value(self) -> Tensor:
        """The factors that the integers stand for, float64."""
        return self.mantissa.double() * torch.exp2(-self.shift.double())

    def __call__(self, q: Tensor, axis: int = 1) -> Tensor:
        """floor(q * mantissa / 2^shift + 1/2), int64: half goes up. q: int64 within int32, channels on `axis`."""
        mantissa, shift = (by_channel(part, q, axis) for part in (self.mantissa, self.shift))
        return (q * mantissa + (1 << (shift - 1))) >> shift


@dataclass
class Accumulators:
    """Integers of `bits` that sums must fit into. What does not fit wraps, as in two's complement, and is counted:
    `overflows` by the name of the layer, `values` all there were, `largest` the magnitude met."""

    bits: int = 32
    overflows: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    largest: dict[str, int] = field(default_factory=dict)

    def __call__(self, total: Tensor, layer: str) -> Tensor:
        """`total`, int64, as the accumulators hold it."""
        half = 1 << (self.bits - 1)
        beyond = int(((total < -half) | (total >= half)).sum())
        self.values[layer] += total.numel()
        largest = int(total.abs().max()) if total.numel() else 0
        self.largest[layer] = max(self.largest.get(layer, 0), largest)
        if not beyond:
            return total
        self.overflows[layer] += beyond
        return ((total + half) & (2 * half - 1)) - half


def bits_needed(largest: int) -> int:
    """Of a signed integer that holds every value from -largest to largest."""
    return largest.bit_length() + 1


def requantized(
    total: Tensor, scale: Tensor, to_scale: Tensor, zero_point: int, quant_min: int, quant_max: int
) -> Tensor:
    """Accumulators, int64 at `scale` ([] or one a channel), on the grid of another tensor: fixed-point multiplier,
    shift, zero point, clamp."""
    moved = Multiplier.of(scale.double() / to_scale.double())(total)
    return (moved + zero_point).clamp_(quant_min, quant_max)


def integer_bias(bias: Tensor, scale: Tensor, layer: str) -> Tensor:
    """A bias in units of `scale`, int64 within int32. Raises SuiteError, naming the layer, where it does not fit."""
    whole = torch.round(bias.double() / scale.double())
    if not whole.isfinite().all() or bool((whole.abs() >= 2.0**31).any()):
        raise SuiteError(
            f"a bias of layer {layer} is {float(bias.abs().max()):.3g}, more than int32 holds at the scale of its "
            f"products; a channel of its weights is all but zero: fold BatchNorm, or prune the channel"
        )
    return whole.to(torch.int64)


def rescaled_sum(
    one: Tensor, one_scale: Tensor, other: Tensor, other_scale: Tensor, bits: int = 8, held: int = 32
) -> tuple[Tensor, Tensor]:
    """(sum, its scale): two tensors of integers, int64 with their zero points subtracted and below 2^bits, each
    brought to twice the larger scale with some bits to spare, and added.

    To spare are ADD_SHIFT bits, or as many fewer as accumulators of `held` bits need to hold every sum.
    """
    spare = max(0, min(ADD_SHIFT, held - 1 - bits))
    twice = 2 * torch.maximum(one_scale.double(), other_scale.double())
    parts = [
        Multiplier.of(scale.double() / twice)(q << spare)
        for q, scale in ((one, one_scale), (other, other_scale))
    ]
    return parts[0] + parts[1], twice / 2**spare


def may_clip_pairs(q: Tensor, largest_input: int) -> bool:
    """Whether the sum of two products can leave int16, for weights `q` and inputs from 0 to `largest_input`: x86
    processors without VNNI add two products first, and clip them there (`vpmaddubsw`)."""
    return bool(2 * largest_input * int(q.abs().max()) > 2**15 - 1) if q.numel() else False
