"""The figure of accuracy against size and against time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from analysis.compare.configurations import point
from analysis.compare.pareto import SIZE, TIME, Record, front
from analysis.draw.axes import percents
from analysis.draw.style import BASELINE, QUIET, RC, style_of

TITLES = {SIZE: "size of the model as stored (MB)", TIME: "evaluation as it ran (ms an image)"}


# Costs whose axis would span less than this factor are drawn on a linear one.
NARROW = 5


# Where the name of a point may be drawn, in points from it: the nearest offset that is free is used.
OFFSETS = [(x * far, y * far) for far in (1, 1.8, 2.8, 4) for x, y in ((8, -8), (-8, 8), (8, 8), (-8, -8))]


def figure(points: pd.DataFrame, cost: str) -> Figure:
    """Top-1 (mean ± sample standard deviation over seeds) against `cost`, SIZE or TIME, one panel for each model,
    data set and, for TIME, device. The stepped line is the front; its points are named, the others are faint."""
    names = ["model", "dataset"] + (["device"] if cost == TIME else [])
    points = points[points["top1"].notna() & points[cost].notna()]
    panels = [(_title(key), rows) for key, rows in points.groupby(names, sort=False)] or [
        ("no finished run", points)
    ]
    methods = list(dict.fromkeys(points["method"]))
    with matplotlib.rc_context(RC):
        height = max(4.4 * len(panels), 0.205 * (len(methods) + 4) + 0.8)
        width = 7.2 + 0.08 * max(map(len, methods), default=0) + 0.4
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False)
        figure.legend(handles=_legend(methods), loc="outside right upper")
        wanted = []  # of each panel, its points and those of the front
        for axes, (title, rows) in zip(grid[:, 0], panels, strict=True):
            axes.set_title(title)
            wanted.append((rows, _panel(axes, rows, cost)))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # names are drawn on the layout as it is
        for axes, (rows, best) in zip(grid[:, 0], wanted, strict=True):
            _name(axes, rows, best, cost)
    return figure


def _title(key: Sequence[str]) -> str:
    model, dataset, *device = key
    return f"{model} on {dataset}" + "".join(f", {name}" for name in device)


def _panel(axes: Axes, rows: pd.DataFrame, cost: str) -> pd.DataFrame:
    best = front(rows, cost)
    chosen = set(best["configuration"])
    for row in rows.to_dict("records"):
        style = style_of(row["method"])
        spread = 0.0 if math.isnan(row["top1_sd"]) else row["top1_sd"]
        axes.errorbar(
            [row[cost]], [row["top1"]], yerr=[spread], color=style.colour, marker=style.marker, capsize=2,
            markersize=style.size, elinewidth=1, alpha=1.0 if row["configuration"] in chosen else 0.45, zorder=3,
        )  # fmt: skip
    axes.step(
        best[cost], best["top1"], where="post", color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=2
    )
    spreads = rows["top1_sd"].fillna(0)
    percents(axes, [*(rows["top1"] - spreads), *(rows["top1"] + spreads)])
    axes.set_xlabel(TITLES[cost])
    if len(rows):
        cost_axis(axes, rows[cost])
    return best


def cost_axis(axes: Axes, costs: pd.Series[float]) -> None:
    """Give `axes` an x axis for `costs`, above zero: logarithmic, or linear where they lie close together."""
    low, high = float(costs.min()) / 1.25, float(costs.max()) * 1.25
    if high < NARROW * low:
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


def _name(axes: Axes, rows: pd.DataFrame, best: pd.DataFrame, cost: str) -> None:
    """Name the points of the front where no name covers another or a point; one without room stays unnamed."""
    frame = axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in _pixels(axes, rows[cost], rows["top1"])]
    point_in_pixels = axes.figure.dpi / 72
    for row in best.iloc[::-1].to_dict("records"):
        text = _note(axes, row, cost, *OFFSETS[0])
        size = text.get_window_extent()
        text.remove()
        ((left, bottom),) = _pixels(axes, [row[cost]], [row["top1"]])
        for x, y in OFFSETS:
            corner = left + x * point_in_pixels, bottom + y * point_in_pixels
            x0 = corner[0] - (size.width if x < 0 else 0)
            y0 = corner[1] - (size.height if y < 0 else 0)
            box = Bbox.from_bounds(x0, y0, size.width, size.height).padded(1)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                _note(axes, row, cost, x, y)
                taken.append(box)
                break


def _note(axes: Axes, row: Record, cost: str, x: float, y: float) -> Annotation:
    arrow = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkB": 3} if abs(x) > 9 else None
    return axes.annotate(
        point(row), (row[cost], row["top1"]), xytext=(x, y), textcoords="offset points", fontsize=8,
        ha="left" if x > 0 else "right", va="bottom" if y > 0 else "top", arrowprops=arrow, zorder=5,
    )  # fmt: skip


def _pixels(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    if not len(xs):
        return []
    return [(float(x), float(y)) for x, y in axes.transData.transform(np.column_stack([xs, ys]))]


def _legend(methods: Sequence[str]) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], linestyle="none", label=method, color=style_of(method).colour, marker=style_of(method).marker,
            markersize=style_of(method).size,
        )
        for method in methods
    ]  # fmt: skip
    handles.append(Line2D([], [], color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label="front"))
    handles.append(
        Line2D([], [], color=BASELINE, linestyle="none", marker="|", markersize=9, label="± sd over seeds")
    )
    return handles
