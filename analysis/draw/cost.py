"""The figure of drop from float against size and against latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from analysis.compare.configurations import point
from analysis.compare.pareto import LATENCY, SIZE, Record, front
from analysis.draw.axes import bar, drops, ends, shown
from analysis.draw.style import BASELINE, NARROW, QUIET, WIDE, laid_out, rc, style_of

TITLES = {SIZE: "size of the model as stored (MB)", LATENCY: "latency of the exported network (ms an image)"}


# Costs whose axis would span less than this factor are drawn on a linear one.
SHORT = 5


# A name farther from its point than this many points is joined to it by a line.
CLOSE = 9
# Where the name of a point may be drawn, in points from it: the nearest offset that is free is used.
OFFSETS = [(x * far, y * far) for far in (1, 1.8, 2.8, 4) for x, y in ((8, -8), (-8, 8), (8, 8), (-8, -8))]


def figure(points: pd.DataFrame, cost: str, width: float = WIDE) -> Figure:
    """Drop from float, with its 95 % interval, against `cost`, SIZE or LATENCY, one panel for each model, data set
    and, for LATENCY, `panel`; `width` in inches. The stepped line is the front; its points are named, the others are
    faint."""
    names = ["model", "dataset"] + (["panel"] if cost == LATENCY else [])
    # A float network drops by nothing from itself.
    measured = (points["method"] != "float") | points["drop"].notna()
    points = points.assign(drop=points["drop"].where(measured, 0.0))
    points = points[points["drop"].notna() & points[cost].notna()]
    panels = [(_title(key), rows) for key, rows in points.groupby(names, sort=False)] or [
        ("no finished run", points)
    ]
    methods = list(dict.fromkeys(points["method"]))
    narrow = width < NARROW
    with matplotlib.rc_context(rc(width)):
        height = max(4.4 * len(panels), 0.205 * (len(methods) + 4) + 0.8)
        figure = Figure(figsize=(width, height + 0.1 * len(methods) * narrow), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False)
        place: Any = "outside lower center" if narrow else "outside right upper"
        figure.legend(handles=_legend(methods), loc=place, ncols=2 if narrow else 1)
        wanted = []  # of each panel, its points and those of the front
        for axes, (title, rows) in zip(grid[:, 0], panels, strict=True):
            axes.set_title(title)
            wanted.append((rows, _panel(axes, rows, cost)))
        laid_out(figure)  # names are drawn on the layout as it is
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
        axes.errorbar(
            [row[cost]], [shown(row["drop"])], yerr=bar(row, "drop"), color=style.colour, marker=style.marker,
            markersize=style.size, elinewidth=1, alpha=1.0 if row["configuration"] in chosen else 0.45, zorder=3,
        )  # fmt: skip
    axes.step(
        best[cost], [shown(drop) for drop in best["drop"]], where="post", color=QUIET, linewidth=1,
        linestyle=(0, (4, 3)), zorder=2,
    )  # fmt: skip
    drops(axes, [value for row in rows.to_dict("records") for value in ends(row, "drop")], "y")
    axes.set_xlabel(TITLES[cost])
    if len(rows):
        cost_axis(axes, rows[cost])
    return best


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


def _name(axes: Axes, rows: pd.DataFrame, best: pd.DataFrame, cost: str) -> None:
    """Name the points of the front where no name covers another, a point, or the line from a name to its point; one
    without room stays unnamed."""
    frame = axes.get_window_extent()
    taken = [
        Bbox.from_bounds(x - 4, y - 4, 8, 8)
        for x, y in _pixels(axes, rows[cost], [shown(drop) for drop in rows["drop"]])
    ]
    point_in_pixels = axes.figure.dpi / 72
    names: list[Bbox] = []
    leaders: list[Path] = []
    for row in best.iloc[::-1].to_dict("records"):
        text = _note(axes, row, cost, *OFFSETS[0])
        size = text.get_window_extent()
        text.remove()
        ((left, bottom),) = _pixels(axes, [row[cost]], [shown(row["drop"])])
        for x, y in OFFSETS:
            corner = left + x * point_in_pixels, bottom + y * point_in_pixels
            x0 = corner[0] - (size.width if x < 0 else 0)
            y0 = corner[1] - (size.height if y < 0 else 0)
            box = Bbox.from_bounds(x0, y0, size.width, size.height).padded(1)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            leader = Path([(left, bottom), ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)])
            is_crossed = any(leader.intersects_bbox(other, filled=False) for other in names)
            is_crossed |= any(other.intersects_bbox(box, filled=False) for other in leaders)
            if inside and not is_crossed and not any(box.overlaps(other) for other in taken):
                _note(axes, row, cost, x, y)
                taken.append(box)
                names.append(box)
                leaders += [leader] * (abs(x) > CLOSE)
                break


def _note(axes: Axes, row: Record, cost: str, x: float, y: float) -> Annotation:
    arrow = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkB": 3} if abs(x) > CLOSE else None
    return axes.annotate(
        point(row), (row[cost], shown(row["drop"])), xytext=(x, y), textcoords="offset points", fontsize=8,
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
        Line2D([], [], color=BASELINE, linestyle="none", marker="|", markersize=9, label="95 % interval")
    )
    return handles
