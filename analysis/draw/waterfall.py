"""The waterfall figure of an ablation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.compare.ablation import title
from analysis.draw.axes import minus
from analysis.draw.style import BASELINE, QUIET, RC

BETTER, WORSE = "#0072B2", "#D55E00"
MOST = 60.0
"""Points of top-1 that a panel spans before it shows all of 0 to 100."""


def figure(table: pd.DataFrame, baseline: float) -> Figure:
    """A panel a chain: each switch as a bar from the accuracy before it to that after it, the first from `baseline`,
    the float network's. Each panel spans what happens in it."""
    panels = [chain for _, chain in table.groupby("chain")]
    with matplotlib.rc_context(RC):
        heights = [len(chain) + 1.9 for chain in panels]
        figure = Figure(figsize=(9.6, 0.34 * sum(heights) + 0.6), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, chain in zip(grid[:, 0], panels, strict=True):
            _panel(axes, chain.to_dict("records"), baseline)
        grid[-1, 0].set_xlabel("top-1 (%); bars: change by the switch, with its 95 % interval; dashed: float")
    return figure


def span(values: Iterable[float]) -> tuple[float, float]:
    """The ends of an axis of percents that shows all `values`: at least a point wide, 5 % free at either end, and all
    of 0 to 100 where little is missing from that.

    >>> span([91.7, 91.9])
    (91.25, 92.35)
    >>> span([10.0, 91.7])
    (-4.0, 104.0)
    """
    found = [value for value in values if not math.isnan(value)] or [0.0, 100.0]
    low, high = min(found), max(found)
    if high - low > MOST:
        return -4.0, 104.0
    middle, half = (low + high) / 2, max(1.0, high - low) / 2
    return round(middle - 1.1 * half, 2), round(middle + 1.1 * half, 2)


def _panel(axes: Axes, rows: list[dict[str, Any]], baseline: float) -> None:
    first = rows[0]
    axes.set_title(title(first) + (f", published as {first['published']}" if first["published"] else ""))
    axes.axvline(baseline, color=BASELINE, linestyle="--", linewidth=1)
    halves = [(row["high"] - row["low"]) / 2 for row in rows]
    reached = [row["top1"] + sign * half for row, half in zip(rows, halves, strict=True) for sign in (-1, 1)]
    axes.set_xlim(*span([baseline, *(row["top1"] for row in rows), *reached]))
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    axes.set_yticks(range(len(rows)), [row["switch"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    beside = axes.get_yaxis_transform()
    before = baseline
    for index, (row, half) in enumerate(zip(rows, halves, strict=True)):
        if index and not math.isnan(before):
            axes.plot([before] * 2, [index - 1, index], color=QUIET, linewidth=0.8)
        if math.isnan(row["top1"]):
            axes.text(1.01, index, "not run", va="center", color=QUIET, transform=beside)
        else:
            _bar(axes, index, row, before, half)
            change = "" if math.isnan(row["difference"]) else f"  ({row['difference']:+.2f})"
            axes.text(1.01, index, minus(f"{row['top1']:.2f}{change}"), va="center", transform=beside)
        before = row["top1"]


def _bar(axes: Axes, index: int, row: dict[str, Any], before: float, half: float) -> None:
    """From the accuracy before a switch to that after it, with the interval of the change; the accuracy alone where
    that before it is not known."""
    if math.isnan(before + row["difference"]):
        axes.plot([row["top1"]], [index], marker="D", color=QUIET, linestyle="none")
        return
    colour = BETTER if row["difference"] >= 0 else WORSE
    axes.barh(index, row["top1"] - before, left=before, height=0.6, color=colour)
    axes.errorbar(row["top1"], index, xerr=half, color=BASELINE, capsize=2, linewidth=1)
    axes.plot([row["top1"]] * 2, [index - 0.3, index + 0.3], color=colour, linewidth=2)
