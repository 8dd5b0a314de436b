"""A logarithmic axis of drops from float, and the room that names beside lines need."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

LEAST = 0.1
"""Points of top-1: a smaller drop, and one below 0, is drawn at the end of the axis, whose tick says so."""
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
LABEL = "drop from float (points of top-1)"


def shown(drop: float) -> float:
    """Where a drop is drawn on the axis; NaN stays."""
    return max(drop, LEAST) if not math.isnan(drop) else drop


def drops(axes: Axes, values: Iterable[float], name: Literal["x", "y"]) -> None:
    """Give `axes` a logarithmic x or y axis for `values`, drops in points; of a y axis the smallest is on top."""
    found = [shown(value) for value in values if not math.isnan(value)]
    high = max([1.0, *found]) * 1.25
    low = LEAST / 1.12
    set_scale, set_limits = getattr(axes, f"set_{name}scale"), getattr(axes, f"set_{name}lim")
    set_scale("log")
    set_limits(*((low, high) if name == "x" else (high, low)))
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator([tick for tick in TICKS if tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_label_text(LABEL)


def _tick(value: float, _: object) -> str:
    return ("\N{LESS-THAN OR EQUAL TO} " if value <= LEAST else "") + f"{value:g}"


def minus(text: str) -> str:
    """`text` with the minus signs of its numbers as axes have them.

    >>> minus("top-1 -0.5") == "top-1 \N{MINUS SIGN}0.5"
    True
    """
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text)


def bar(row: Mapping[str, Any], metric: str = "top1") -> list[list[float]]:
    """How far the 95 % interval of a mean reaches below and above it, as `errorbar` takes it, on the axis of drops
    for a drop; 0 where it is not known."""
    place = shown if metric == "drop" else float
    mean, low, high = (place(row[f"{metric}{end}"]) for end in ("", "_low", "_high"))
    return [[0.0 if math.isnan(part) else max(0.0, part)] for part in (mean - low, high - mean)]


def ends(row: Mapping[str, Any], metric: str = "top1") -> list[float]:
    """The mean and the ends of its interval, of what is known."""
    found = [row[f"{metric}{end}"] for end in ("", "_low", "_high")]
    return [value for value in found if not math.isnan(value)]


def spread_out(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Positions near the `wanted` ones, ascending, of boxes of these heights, none over another, within the ends as
    far as they fit.

    >>> spread_out([0.5, 0.5, 0.9], [0.2, 0.2, 0.2], 0.0, 1.0)
    [0.4, 0.6, 0.9]
    """
    # Boxes that touch move as one: their common shift is the mean of what each of them wants.
    groups: list[list[int]] = []

    def centre(group: Sequence[int]) -> float:
        total = sum(heights[index] for index in group)
        begins = [
            sum(heights[i] for i in group[:place]) + heights[index] / 2 for place, index in enumerate(group)
        ]
        start = sum(wanted[index] - begin for index, begin in zip(group, begins, strict=True)) / len(group)
        return max(low, min(start, high - total)) + total / 2

    def reach(group: Sequence[int]) -> tuple[float, float]:
        half = sum(heights[index] for index in group) / 2
        return centre(group) - half, centre(group) + half

    for index in range(len(wanted)):
        groups.append([index])
        while len(groups) > 1 and reach(groups[-2])[1] > reach(groups[-1])[0] + 1e-9:
            groups[-2:] = [groups[-2] + groups[-1]]
    places = []
    for group in groups:
        start = reach(group)[0]
        for index in group:
            places.append(round(start + heights[index] / 2, 9))
            start += heights[index]
    return places
