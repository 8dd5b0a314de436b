"""The waterfall figure of an ablation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.style import BASELINE, QUIET, RC

BETTER, WORSE = "#0072B2", "#D55E00"


def title(first: Mapping[str, Any]) -> str:
    """The title of a chain: the method and the widths that its first recipe is named by.

    >>> title({"name": "linear w8 no weights evaluated batch statistics seed 0"})
    'linear w8'
    """
    return " ".join(first["name"].split()[:2])


def figure(table: pd.DataFrame, baseline: float) -> Figure:
    """A panel a chain: each switch as a bar from the accuracy before it to that after it; `baseline` is float's."""
    panels = [chain for _, chain in table.groupby("chain")]
    with matplotlib.rc_context(RC):
        heights = [len(chain) + 1.4 for chain in panels]
        figure = Figure(figsize=(9.6, 0.34 * sum(heights) + 0.6), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)
        for axes, chain in zip(grid[:, 0], panels, strict=True):
            _panel(axes, chain.to_dict("records"), baseline)
        grid[-1, 0].set_xlabel("top-1 (%); bars: change by the switch, with its 95 % interval; dashed: float")
    return figure


def _panel(axes: Axes, rows: list[dict[str, Any]], baseline: float) -> None:
    first = rows[0]
    axes.set_title(title(first) + (f"   (published, {first['published']})" if first["published"] else ""))
    axes.axvline(baseline, color=BASELINE, linestyle="--", linewidth=1)
    axes.set_xlim(-4, 118)
    axes.set_xticks(range(0, 101, 10))
    axes.set_yticks(range(len(rows)), [row["switch"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    before = math.nan
    for index, row in enumerate(rows):
        if math.isnan(row["top1"]):
            axes.text(1, index, "not run", va="center", color=QUIET)
        elif math.isnan(before + row["difference"]):
            axes.barh(index, row["top1"], height=0.6, color="#b8b8b8")
        else:
            colour = BETTER if row["difference"] >= 0 else WORSE
            axes.barh(index, row["difference"], left=before, height=0.6, color=colour)
            half = (row["high"] - row["low"]) / 2
            axes.errorbar(row["top1"], index, xerr=half, color=BASELINE, capsize=2, linewidth=1)
            axes.plot([row["top1"]] * 2, [index - 0.3, index + 0.3], color=colour, linewidth=2)
        if not math.isnan(row["top1"]):
            change = "" if math.isnan(row["difference"]) else f"  ({row['difference']:+.2f})"
            axes.text(102, index, f"{row['top1']:.2f}{change}", va="center")
        if index and not math.isnan(before):
            axes.plot([before] * 2, [index - 1, index], color=QUIET, linewidth=0.8)
        before = row["top1"]
