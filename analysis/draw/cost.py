"""The figure of drop from float against size and against latency."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.compare.configurations import point
from analysis.compare.pareto import LATENCY, SIZE, sound_front
from analysis.compare.roles import are_sound
from analysis.draw import cost_bars, point_names
from analysis.draw.axes import bar, drops, ends, shown
from analysis.draw.style import BASELINE, NARROW, QUIET, WIDE, laid_out, rc, style_of

TITLES = {SIZE: "size of the model as stored (MB)", LATENCY: "latency of the exported network (ms an image)"}


# Costs whose axis would span less than this factor are drawn on a linear one.
SHORT = 5


PALE = 0.45
"""How opaque a point is that is not on the front."""
HIGH = 4.4
"""Inches of a panel of points."""
LETTERS = 24
"""Of a line of a name in the legend."""


def figure(points: pd.DataFrame, cost: str, width: float = WIDE) -> Figure:
    """Drop from float, with its 95 % interval, against `cost`, SIZE or LATENCY, one panel for each model, data set
    and, for LATENCY, `panel`; `width` in inches. The stepped line is the front (`pareto.sound_front`); its points are
    numbered and named in the legend, the others are pale, and those with a source's defect hollow. A panel of few
    points has bars."""
    panels = _panels(points, cost)
    fronts = [sound_front(rows, cost) if not cost_bars.is_few(rows) else rows[:0] for _, rows in panels]
    handles = _legend([rows for _, rows in panels if not cost_bars.is_few(rows)], fronts)
    narrow = width < NARROW
    heights = [cost_bars.height(rows, narrow) if cost_bars.is_few(rows) else HIGH for _, rows in panels]
    lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
    with matplotlib.rc_context(rc(width)):
        high = sum(heights) + 0.1 * lines if narrow else max(sum(heights), 0.205 * lines + 0.4)
        figure = Figure(figsize=(width, high), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        if handles:
            place: Any = "outside lower center" if narrow else "outside right upper"
            figure.legend(handles=handles, loc=place, ncols=2 if narrow else 1)
        letters = int((width - 0.7) * 13) if narrow else int((width - 2.4) * 10.8)
        for axes, (title, rows), best in zip(grid, panels, fronts, strict=True):
            axes.set_title(textwrap.fill(title, letters))
            axes.set_xlabel(TITLES[cost])
            if cost_bars.is_few(rows):
                cost_bars.panel(axes, rows, cost, narrow=narrow)
            else:
                _panel(axes, rows, best, cost)
        laid_out(figure)  # numbers are drawn on the layout as it is
        numbers = count(1)
        for axes, (_, rows), best in zip(grid, panels, fronts, strict=True):
            named = [(str(next(numbers)), (row[cost], shown(row["drop"]))) for row in best.to_dict("records")]
            places = list(zip(rows[cost], map(shown, rows["drop"]), strict=True))
            point_names.name(axes, named, places, _lines(rows, best, cost))
    return figure


def _panels(points: pd.DataFrame, cost: str) -> list[tuple[str, pd.DataFrame]]:
    """The title of each panel and what it shows, with whether each is `sound`."""
    names = ["model", "dataset"] + (["panel"] if cost == LATENCY else [])
    # A float network drops by nothing from itself.
    measured = (points["method"] != "float") | points["drop"].notna()
    points = points.assign(drop=points["drop"].where(measured, 0.0), sound=are_sound(points))
    points = points[points["drop"].notna() & points[cost].notna()]
    found = [(_title(key), rows) for key, rows in points.groupby(names, sort=False)]
    return found or [("no finished run", points)]


def _title(key: Sequence[str]) -> str:
    model, dataset, *device = key
    return f"{model} on {dataset}" + "".join(f", {name}" for name in device)


def _panel(axes: Axes, rows: pd.DataFrame, best: pd.DataFrame, cost: str) -> None:
    chosen = set(best["configuration"])
    for row in rows.to_dict("records"):
        style = style_of(row["method"])
        axes.errorbar(
            [row[cost]], [shown(row["drop"])], yerr=bar(row, "drop"), color=style.colour, marker=style.marker,
            markersize=style.size, markerfacecolor=style.colour if row["sound"] else "none", elinewidth=1,
            alpha=1.0 if row["configuration"] in chosen else PALE, zorder=3,
        )  # fmt: skip
    axes.step(
        best[cost], [shown(drop) for drop in best["drop"]], where="post", color=QUIET, linewidth=1,
        linestyle=(0, (4, 3)), zorder=2,
    )  # fmt: skip
    drops(axes, [value for row in rows.to_dict("records") for value in ends(row, "drop")], "y")
    if len(rows):
        cost_axis(axes, rows[cost])


def _lines(rows: pd.DataFrame, best: pd.DataFrame, cost: str) -> list[list[tuple[float, float]]]:
    """What a name must not cover, each as the places of a line: the intervals, and the steps of the front."""
    found = []
    for row in rows.to_dict("records"):
        (below,), (above,) = bar(row, "drop")
        if below + above > 0:
            middle = shown(row["drop"])
            found.append([(row[cost], middle - below), (row[cost], middle + above)])
    steps = [(row[cost], shown(row["drop"])) for row in best.to_dict("records")]
    for (left, high), (right, low) in pairwise(steps):
        found.append([(left, high), (right, high), (right, low)])
    return found


def cost_axis(axes: Axes, costs: pd.Series[float]) -> None:
    """Give `axes` an x axis for `costs`, above zero: logarithmic, or linear where they lie close together."""
    low, high = float(costs.min()) / 1.25, float(costs.max()) * 1.25
    if high < SHORT * low:
        axes.set_xlim(low, high)
        return
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    steps = [step * 10.0**power for power in range(-7, 8) for step in (1, 1.5, 2, 3, 5, 7)]
    shown = [step for step in steps if low <= step <= high]
    if len(shown) > 9:
        shown = [step for step in shown if f"{step:e}"[0] in "125" and f"{step:e}"[2] == "0"]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(shown: Sequence[pd.DataFrame], fronts: Sequence[pd.DataFrame]) -> list[Line2D]:
    """How the points of panels are drawn, and which those on the fronts are, by their numbers."""
    if not shown:
        return []
    points = pd.concat(shown)
    marks: dict[str, Any] = {"linestyle": "none", "color": QUIET, "marker": "o"}
    handles = [_handle(method, method) for method in dict.fromkeys(points["method"])]
    handles.append(Line2D([], [], label="not on the front", **marks | {"alpha": PALE}))
    if not points["sound"].all():
        handles.append(Line2D([], [], label="with a source's defect", **marks | {"markerfacecolor": "none"}))
    handles.append(
        Line2D([], [], color=BASELINE, linestyle="none", marker="|", markersize=9, label="95 % interval")
    )
    handles.append(Line2D([], [], color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label="front:"))
    best = [row for front in fronts for row in front.to_dict("records")]
    for number, row in enumerate(best, 1):
        name = textwrap.fill(
            f"{number}  {point(row)}", LETTERS, subsequent_indent="   ", break_on_hyphens=False
        )
        handles.append(_handle(row["method"], name))
    return handles


def _handle(method: str, label: str) -> Line2D:
    style = style_of(method)
    return Line2D(
        [], [], linestyle="none", label=label, color=style.colour, marker=style.marker, markersize=style.size
    )
