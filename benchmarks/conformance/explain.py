"""Why two answers differ: the rule that explains it is computed, and has to give the toolkit's answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.conformance.settings import Range, Setting
from suite.ranges.observers import extremes

NEAR = 1e-3
"""Of a step: how far from a tie float rounding can move a value, at most 2^9 steps of 2^-24 and three roundings."""

EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Verdict:
    """A class of the package's docstring, or "equal"; `why` is the rule."""

    kind: str
    why: str = ""


EQUAL = Verdict("equal")


def defect(why: str) -> Verdict:
    """An answer that breaks the toolkit's own definition."""
    return Verdict("defect", why)


class Position:
    """Where values lie on a grid, in float64: `at` is x / scale + zero_point."""

    def __init__(self, x: Tensor, range_: Range, per_channel: bool) -> None:
        shape = [-1, 1] if per_channel else []
        self.x, self.range_ = x, range_
        self.scale = range_.scale.reshape(shape)
        self.zero_point = range_.zero_point.reshape(shape)
        self.at = x.double() / self.scale.double() + self.zero_point.double()
        self.low, self.high = range_.quant_min, range_.quant_max

    def code(self, output: Tensor) -> Tensor:
        """The integers that `output` was mapped back from, not rounded: whole numbers up to float rounding."""
        return output.double() / self.scale.double() + self.zero_point.double()

    @property
    def near_a_tie(self) -> Tensor:
        """Whether a value lies halfway between two steps, up to float rounding."""
        return (self.at - self.at.floor() - 0.5).abs() < NEAR

    def near_an_end(self, reach: float) -> Tensor:
        """Whether a value lies `reach` steps beyond an end of the grid, up to float rounding."""
        return ((self.at - self.high - reach).abs() < NEAR) | ((self.at - self.low + reach).abs() < NEAR)


def grid(ours: tuple[int, int], theirs: tuple[int, int]) -> Verdict:
    """quant_min and quant_max."""
    if ours == theirs:
        return EQUAL
    known = theirs == (ours[0] - 1, ours[1])
    return Verdict(
        "narrow grid" if known else "unexplained", f"{theirs[0]} to {theirs[1]}, ours {ours[0]} to {ours[1]}"
    )


def scale(x: Tensor, setting: Setting, ours: Range, theirs: Range) -> Verdict:
    """By the formulas that toolkits have, with the smallest scales that they have."""
    low, high = extremes(x, 0 if setting.per_channel else None)
    if not bool((theirs.scale.isfinite() & (theirs.scale >= 0)).all()):
        wrong = theirs.scale[~(theirs.scale.isfinite() & (theirs.scale >= 0))].flatten()[0]
        return defect(f"a scale of {float(wrong)}")
    nothing = (low == 0) & (high == 0)
    if bool((theirs.scale == 0).any()):
        if not torch.equal(theirs.scale == 0, nothing):
            return defect("a scale of 0 for values that are not")
        return Verdict("range rule", "zeros have a scale of 0, and stay zeros")
    if torch.equal(ours.scale, theirs.scale):
        return EQUAL
    if _close(theirs.scale, ours.scale):
        return Verdict("last bit", "the same formula in another order")
    formulas = _symmetric(low, high, theirs) if setting.symmetric else _affine(low, high, theirs)
    for formula, value in formulas.items():
        for floor, smallest in _floors(value, theirs, low, high).items():
            if _close(theirs.scale, torch.maximum(value, smallest)):
                why = [part for part in (formula, floor) if part]
                return Verdict("range rule", ", ".join(why))
        if _close(theirs.scale, torch.where(value < EPS, value + EPS, value)):
            why = [part for part in (formula, f"plus {EPS:.3g} (float32's eps) where it is less") if part]
            return Verdict("range rule", ", ".join(why))
    if not setting.symmetric and _close(
        theirs.scale, (high - low.clamp_max(0)) / (theirs.quant_max - theirs.quant_min)
    ):
        return defect(
            "the width of a tensor below zero ends at its largest value, not at zero: its least are clipped"
        )
    return Verdict(
        "unexplained", f"{float(theirs.scale.flatten()[0]):.9g}, ours {float(ours.scale.flatten()[0]):.9g}"
    )


def _close(theirs: Tensor, expected: Tensor) -> bool:
    """To two units in the last place."""
    return bool(((theirs - expected).abs() <= 2 * 2.0**-23 * expected.abs()).all())


def _symmetric(low: Tensor, high: Tensor, range_: Range) -> dict[str, Tensor]:
    amax = torch.maximum(-low, high)
    return {
        "": amax / range_.quant_max,
        "the least that holds both ends": torch.maximum(low / range_.quant_min, high / range_.quant_max),
        "amax over half the steps": amax / ((range_.quant_max - range_.quant_min) / 2),
    }


def _affine(low: Tensor, high: Tensor, range_: Range) -> dict[str, Tensor]:
    steps = range_.quant_max - range_.quant_min
    below, above = low.clamp_max(0), high.clamp_min(0)
    return {
        "": (above - below) / steps,
        "an end moved until zero is exact": _tuned(below, above, steps)[0],
        APART: _tuned(*_moved_apart(low, high), steps)[0],
    }


APART = "ends of less than 0.0008 moved apart by it, then one until zero is exact"


def _moved_apart(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    apart = torch.where(high - low > 8e-4, 0.0, 8e-4)
    return (low - apart).clamp_max(0), (high + apart).clamp_min(0)


def _tuned(low: Tensor, high: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """(scale, steps below zero) as NNCF has them: the end is moved outwards that makes -low / scale a whole number
    with the least change."""
    zero = torch.round(-low * (steps / (high - low)))
    lower = torch.where(zero < steps, zero / (zero - steps) * high, low)
    upper = torch.where(zero > 0, (zero - steps) / zero * low, high)
    return torch.where(high - lower > upper - low, high - lower, upper - low) / steps, zero


def _floors(value: Tensor, range_: Range, low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """The smallest scale a toolkit accepts."""
    amax = torch.maximum(-low, high)
    steps = range_.quant_max - range_.quant_min
    share = torch.maximum(0.01 * amax.max(), amax.new_tensor(8e-5)) / range_.quant_max
    floors = {
        "": torch.finfo(torch.float32).tiny,
        f"at least {EPS:.3g} (float32's eps)": EPS,
        "at least 1e-10 of an amax": 1e-10 / range_.quant_max,
    }
    floors |= {"at least 1e-10 of a width": 1e-10 / steps}
    found = {name: torch.full_like(value, number) for name, number in floors.items()}
    return found | {"an amax of at least 1 % of the widest channel's and 0.00008": share.expand_as(value)}


def zero_point(x: Tensor, setting: Setting, ours: Range, theirs: Range) -> Verdict:
    """As steps above quant_min; where symmetric, as it is."""
    mine, other = ours.zero_point, theirs.zero_point
    if not setting.symmetric:
        mine, other = mine - ours.quant_min, other - theirs.quant_min
    if torch.equal(mine, other):
        return EQUAL
    low, high = extremes(x, 0 if setting.per_channel else None)
    exact = -low.clamp_max(0).double() / theirs.scale.double()
    if bool(((exact - other.double()).abs() <= 0.5 + NEAR).all()):
        if _close(ours.scale, theirs.scale):
            return Verdict("tie rounding", "the low end lies halfway between two steps")
        return Verdict("range rule", "follows from the other scale")
    if torch.equal(_tuned(*_moved_apart(low, high), theirs.quant_max - theirs.quant_min)[1], other):
        return Verdict("range rule", APART)
    return Verdict("unexplained", f"{float(other.flatten()[0])}, ours {float(mine.flatten()[0])}")


def codes(grid: Position, ours: Tensor, theirs: Tensor) -> tuple[Verdict, Tensor]:
    """(verdict, where the two differ, bool in the shape of x)."""
    if not bool(theirs.isfinite().all()):
        return defect("an output that is not finite"), ~theirs.isfinite()
    mine, other = grid.code(ours), grid.code(theirs)
    off = (other - other.round()).abs() > NEAR
    if bool(off.any()):
        return defect("an output that is not on its own grid"), off
    differs = mine.round() != other.round()
    if not bool(differs.any()):
        return EQUAL, differs
    by_one = (mine.round() - other.round()).abs() == 1
    outside = (other.round() < grid.low) | (other.round() > grid.high)
    if bool(outside.any()):
        return defect("an integer outside its own grid"), outside
    if not bool((differs & ~_counts_as_zero(grid, other)).any()):
        return Verdict("range rule", COUNTS_AS_ZERO), differs
    unexplained = differs & ~(by_one & grid.near_a_tie)
    if bool(unexplained.any()):
        return Verdict("unexplained", "codes differ away from ties"), unexplained
    for name, rule in _roundings(grid).items():
        if torch.equal(rule.clamp(grid.low, grid.high).double(), other.round()):
            return Verdict("tie rounding", name), differs
    return Verdict("tie rounding", "in another order"), differs


COUNTS_AS_ZERO = "an amax of at most 2^-24 counts as zero, and so do all values"


def _counts_as_zero(grid: Position, code: Tensor) -> Tensor:
    return (grid.scale * grid.high <= 2.0**-24) & (code == grid.zero_point)


def _roundings(grid: Position) -> dict[str, Tensor]:
    x, scale, zero = grid.x, grid.scale, grid.zero_point
    divided, steps = x / scale, grid.high - grid.low
    low = (grid.low - zero) * scale
    per = steps / (steps * scale)
    inside = torch.minimum(torch.maximum(x, low), low + steps * scale)
    return {
        "round(x / scale) + zero_point": torch.round(divided) + zero,
        "round(x / scale + zero_point)": torch.round(divided + zero),
        "round(x * (1 / scale) + zero_point)": torch.round(x * scale.reciprocal() + zero),
        "round(x * (quant_max / amax))": torch.round(x * (grid.high / (scale * grid.high))) + zero,
        "round((x - low) * (steps / width) - zero)": torch.round(
            (inside - low) * per - torch.round(-low * per)
        )
        + zero,
        "half away from zero": torch.sign(divided) * (divided.abs() + 0.5).floor() + zero,
        "half up": (divided + 0.5).floor() + zero,
    }


def clipped(grid: Position, ours: Tensor, theirs: Tensor) -> tuple[Verdict, Tensor]:
    """By the outputs: a value is clipped that lies further from its output than half a step."""
    far = 0.5 * (1 + NEAR)
    mine, other = ((grid.at - grid.code(output)).abs() > far for output in (ours, theirs))
    differs = mine != other
    if mine.sum() == other.sum():
        return EQUAL, differs
    if not bool((differs & ~_counts_as_zero(grid, grid.code(theirs))).any()):
        return Verdict("range rule", COUNTS_AS_ZERO), differs
    if bool((~differs | grid.near_a_tie).all()):
        return Verdict("tie rounding", "at the ends of the grid"), differs
    return Verdict("unexplained", f"{int(other.sum())} values, ours {int(mine.sum())}"), differs


def mask(grid: Position, ours: Tensor, theirs: Tensor) -> tuple[Verdict, Tensor]:
    """Of the gradients: for which values they pass."""
    differs = ours != theirs
    if not bool(differs.any()):
        return EQUAL, differs
    if not bool(theirs.isfinite().all()):
        return defect("a gradient that is not finite"), ~theirs.isfinite()
    if bool(((ours - theirs).abs() <= 2 * 2.0**-24).all()):
        return Verdict("last bit", "passed through 1 / scale and scale"), differs
    inside = (grid.at >= grid.low) & (grid.at <= grid.high)
    amax = grid.scale * grid.high
    rules = {
        "passes everywhere": (torch.ones_like(grid.x), torch.zeros_like(differs)),
        "passes within the ends of the grid, not half a step beyond": (inside, grid.near_an_end(0)),
        "passes for |x| <= amax": (
            grid.x.abs() <= amax,
            (grid.x.abs() / amax - 1).abs() < NEAR / max(1, grid.high),
        ),
    }
    for name, (expected, _) in rules.items():
        if torch.equal(expected.to(theirs.dtype), theirs):
            return Verdict("masks", name), differs
    if bool((~differs | grid.near_a_tie).all()) and bool(((theirs == 0) | (theirs == 1)).all()):
        return Verdict("tie rounding", "at the ends of the mask"), differs
    for name, (expected, unsure) in rules.items():
        if bool(((expected.to(theirs.dtype) == theirs) | unsure).all()):
            return Verdict("masks", name), differs
    return Verdict("unexplained", "another mask"), differs
