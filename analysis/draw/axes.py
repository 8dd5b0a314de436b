"""A log-like accuracy axis, stretched towards the best results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

# An axis that must span more points than this is stretched at its interesting end; a shorter one is linear.
WIDE = 15.0
# Distance from the best value, in points, up to which a stretched axis is about linear.
LINEAR = 2.0
# Least distance between two ticks, as a part of the axis.
SPACING = 0.055
STEPS = (1, 2, 5, 10, 20, 50)
DROPS = (0, 1, 2, 5, 10, 20, 50, 100, -1, -2, -5, -10, -20, -50, -100)


def stretched(top: float) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """A scale for percents and its inverse: logarithmic in the distance below `top`, linear near it.

    >>> there, back = stretched(92.0)
    >>> back(there(np.array([91.5, 60.0, 10.0]))).round(6).tolist()
    [91.5, 60.0, 10.0]
    """

    def there(percent: Array) -> Array:
        distance = top - np.asarray(percent, dtype=np.float64)
        return -np.sign(distance) * np.log1p(np.abs(distance) / LINEAR)

    def back(position: Array) -> Array:
        position = np.asarray(position, dtype=np.float64)
        return top + np.sign(position) * LINEAR * np.expm1(np.abs(position))

    return there, back


def percents(axes: Axes, values: Iterable[float]) -> None:
    """Give `axes` a y axis for `values`, percents: linear if they lie close together, else stretched."""
    # A spread may reach beyond what a percent can be; the axis does not.
    found = [min(max(value, 0.0), 100.0) for value in values if not math.isnan(value)]
    if not found:
        return
    low, high = min(found), max(found)
    axes.set_ylabel("top-1 (%)")
    if high - low <= WIDE:
        margin = max(0.5, (high - low) * 0.06)
        axes.set_ylim(low - margin, high + margin)
        return
    there, back = stretched(high)
    axes.set_yscale("function", functions=(there, back))
    span = float(there(np.array([high]))[0] - there(np.array([low]))[0])
    bottom = float(back(there(np.array([low])) - 0.04 * span)[0])
    axes.set_ylim(bottom, float(back(np.array([0.04 * span]))[0]))
    _ticks(axes, ticks(bottom, high, high), "y")
    axes.set_ylabel("top-1 (%), stretched towards the best")


def ticks(low: float, high: float, top: float) -> list[float]:
    """Round percents from `low` to `high` for the scale `stretched(top)`, none closer than SPACING of the axis.

    >>> ticks(8.0, 92.3, 92.3)
    [10.0, 30.0, 50.0, 60.0, 68.0, 74.0, 78.0, 82.0, 85.0, 87.0, 89.0, 90.0, 91.0, 92.0]
    """
    there, back = stretched(top)

    def position(percent: float) -> float:
        return float(there(np.array([percent]))[0])

    spacing = SPACING * (position(high) - position(low))
    found = [float(math.floor(high))]
    while True:
        fits = float(back(np.array([position(found[-1]) - spacing]))[0])
        step = max((step for step in STEPS if step <= found[-1] - fits), default=1)
        following = float(math.floor(fits / step) * step)
        if following < low:
            return sorted(found)
        found.append(following)


def drops(axes: Axes, values: Iterable[float]) -> None:
    """Give `axes` an x axis for `values`, drops in points: linear if small, else logarithmic beyond 1."""
    found = [0.0, *(value for value in values if not math.isnan(value))]
    low, high = min(found), max(found)
    if high - low <= WIDE:
        margin = max(0.1, (high - low) * 0.05)
        axes.set_xlim(low - margin, high + margin)
        axes.set_xlabel("drop from float (points of top-1)")
        return
    axes.set_xscale("symlog", linthresh=1, linscale=0.8)
    axes.set_xlim(low * 1.2 - 0.3 if low > -1 else low * 1.3, high * 1.25)
    left, right = axes.get_xlim()
    _ticks(axes, [float(drop) for drop in DROPS if left <= drop <= right], "x")
    axes.set_xlabel("drop from float (points of top-1), logarithmic beyond 1")


def _ticks(axes: Axes, positions: list[float], name: str) -> None:
    axis = axes.yaxis if name == "y" else axes.xaxis
    axis.set_major_locator(FixedLocator(positions))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
