"""What chosen widths gain over uniform ones of the same budget: a panel a budget, each with an axis of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.compare.widths import by_group, chosen
from analysis.draw.axes import minus
from analysis.draw.style import BASELINE, QUIET, RC
from analysis.draw.widths import STYLES

PANEL_INCHES, ROW_INCHES = 3.1, 0.34
ROOM = 0.12
"""How much wider an axis is than what is on it, on either side, by part."""


def figure(table: pd.DataFrame) -> Figure | None:
    """Of the table of `compare.widths.compared` the gain of each score with its 95 % interval, at each budget that has
    uniform widths beside it; None where none has."""
    known = chosen(table)
    known = known[known["gain"].notna()]
    groups = [(title, _panels(rows)) for title, rows in by_group(known)]
    if not groups:
        return None
    across = max(len(panels) for _, panels in groups)
    scores = [list(dict.fromkeys(row["by"] for _, rows in panels for row in rows)) for _, panels in groups]
    heights = [ROW_INCHES * len(listed) + 0.95 for listed in scores]
    with matplotlib.rc_context(RC):
        whole = Figure(figsize=(PANEL_INCHES * across + 1.2, sum(heights) + 0.4), layout="constrained")
        parts = whole.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, (title, panels), listed in zip(parts, groups, scores, strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=10)
            grid = part.subplots(1, across, squeeze=False)[0]
            for axes in grid[len(panels) :]:
                axes.set_axis_off()
            for place, (axes, (name, rows)) in enumerate(zip(grid, panels, strict=False)):
                _panel(axes, rows, listed, named=place == 0)
                axes.set_title(name, fontsize=9)
        whole.legend(handles=_legend(known), loc="outside lower center", ncols=3, fontsize=8)
    return whole


def _panels(rows: pd.DataFrame) -> list[tuple[str, list[dict[Any, Any]]]]:
    """The rows of each budget with its title, in their order."""
    budgets: dict[str, list[dict[Any, Any]]] = {}
    for row in rows.to_dict("records"):
        budgets.setdefault(str(row["name"]).partition(", ")[2], []).append(row)
    return [(_title(budget, mine), mine) for budget, mine in budgets.items()]


def _title(budget: str, rows: Sequence[Mapping[Any, Any]]) -> str:
    """`4 bits, above w4a4 (89.48 %)`; a budget between two uniform ones has no one top-1."""
    beside = {(row["uniform"], round(row["uniform_top1"], 2)) for row in rows}
    uniform, top1 = next(iter(beside))
    return f"{budget}, above {uniform}" + (
        f" ({top1:.2f} %)" if len(beside) == 1 and " to " not in uniform else ""
    )


def _panel(axes: Axes, rows: Sequence[Mapping[Any, Any]], scores: Sequence[str], *, named: bool) -> None:
    ends: list[float] = [0.0]
    for row in rows:
        colour, marker = STYLES.get(str(row["by"]), (QUIET, "X"))
        y, gain = scores.index(row["by"]), row["gain"]
        is_tested = row["low"] == row["low"]
        if is_tested:
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.4)
            ends += [row["low"], row["high"]]
        axes.plot(
            gain, y, marker, color=colour, markersize=7, markerfacecolor=colour if is_tested else "none"
        )
        axes.annotate(minus(f"{gain:+.2f}"), (gain, y), xytext=(0, 6), textcoords="offset points", ha="center",
                      fontsize=8)  # fmt: skip
        ends.append(gain)
    room = ROOM * max(max(ends) - min(ends), 0.5)
    axes.axvline(0, color=BASELINE, linewidth=1)
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.set_ylim(len(scores) - 0.5, -0.8)
    axes.set_yticks(range(len(scores)), [f"by {score}" if named else "" for score in scores])
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("gain (points of top-1)")


def _legend(known: pd.DataFrame) -> list[Line2D]:
    marks: dict[str, Any] = {"color": QUIET, "marker": "o", "markersize": 6}
    found = [Line2D([], [], label="gain and its 95 % interval, paired over the test images", **marks)]
    if known["low"].isna().any():
        words = "above the line between two uniform widths, or not paired"
        found.append(Line2D([], [], linestyle="none", markerfacecolor="none", label=words, **marks))
    return found
