"""The figure of drops from float: every configuration a row, the smallest drop on top."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.compare.configurations import by_network, hole, widths
from analysis.compare.roles import are_drawn
from analysis.draw.axes import bar, drops, ends, shown
from analysis.draw.lines import Record
from analysis.draw.style import BASELINE, NARROW, QUIET, WIDE, laid_out, rc, style_of

ROW_INCHES, NARROW_ROW_INCHES = 0.235, 0.3


def figure(
    marked: pd.DataFrame,
    configurations: pd.DataFrame,
    comparison: pd.DataFrame,
    width: float = WIDE,
    *,
    by_drop: bool = True,
) -> Figure:
    """Drop from float of every configuration, the smallest on top or, not `by_drop`, in the order of the table: each
    seed, their mean with its 95 % interval, what was published.

    A configuration with no run done keeps its row, at the bottom, with the reason. Below NARROW inches of `width` a
    name stands above its row, not beside it.
    """
    quantized = configurations[configurations["method"] != "float"]
    panels = [(title, group.to_dict("records")) for title, group in by_network(quantized)]
    narrow = width < NARROW
    with matplotlib.rc_context(rc(width)):
        counts = [len(rows) for _, rows in panels] or [1]
        each = NARROW_ROW_INCHES if narrow else ROW_INCHES
        height = sum(counts) * each + 1.1 * len(counts) + (0.9 if narrow else 0.5)
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(counts), 1, squeeze=False, gridspec_kw={"height_ratios": counts})
        for axes, (title, rows) in zip(grid[:, 0], panels, strict=False):
            axes.set_title(title)
            _panel(axes, sorted(rows, key=_order) if by_drop else rows, marked, comparison)
            _names(axes, sorted(rows, key=_order) if by_drop else rows, above=narrow)
        figure.legend(
            handles=_legend(_dots(configurations), bool(_published(comparison))),
            loc="outside lower center",
            ncols=1 if narrow else 3,
        )
        return laid_out(figure)


def _panel(axes: Axes, rows: list[Record], marked: pd.DataFrame, comparison: pd.DataFrame) -> None:
    values: list[float] = []
    known = marked[marked["drop"].notna()]
    of_seeds = {name: list(drops) for name, drops in known.groupby("configuration")["drop"]}
    of_source = _published(comparison)
    for y, row in enumerate(rows):
        style = style_of(row["method"])
        seeds = of_seeds.get(row["configuration"], [])
        published = of_source.get(row["configuration"], [])
        if len(seeds) > 1:
            axes.plot(
                [shown(seed) for seed in seeds], [y] * len(seeds), linestyle="none", marker="o", markersize=3.5,
                markeredgewidth=0, color=style.colour, alpha=0.45, zorder=2,
            )  # fmt: skip
        axes.errorbar(
            [shown(row["drop"])], [y], xerr=bar(row, "drop"), color=style.colour, marker=style.marker,
            markersize=style.size, elinewidth=1, zorder=3,
        )  # fmt: skip
        if published:
            axes.plot(
                [shown(drop) for drop in published], [y] * len(published), linestyle="none", marker="D",
                markersize=8, markerfacecolor="none", markeredgecolor=style.colour, markeredgewidth=1.4, zorder=4,
            )  # fmt: skip
        values += [*seeds, *ends(row, "drop"), *published]
    drops(axes, values, "x")
    axes.set_ylim(len(rows) - 0.4, -0.8)


def _names(axes: Axes, rows: list[Record], *, above: bool) -> None:
    names = [_name(row) for row in rows]
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(range(len(rows)), [""] * len(rows) if above else names)
    tones = [BASELINE if row["n"] else QUIET for row in rows]
    for tick, tone in zip(axes.get_yticklabels(), tones, strict=True):
        tick.set_color(tone)
    for y, (name, tone) in enumerate(zip(names, tones, strict=True) if above else ()):
        axes.text(0.012, y - 0.18, name, transform=axes.get_yaxis_transform(), fontsize=6.5, color=tone,
                  va="bottom")  # fmt: skip


def _order(row: Record) -> tuple[bool, float, str]:
    # NaN compares with nothing: what has no drop goes to the bottom, by name.
    unknown = math.isnan(row["drop"])
    return unknown, 0.0 if unknown else row["drop"], _name(row)


def _name(row: Record) -> str:
    name = f"{row['label']}  {widths(row)}"
    return name if row["n"] else f"{name} ({hole(row)})"


def _published(comparison: pd.DataFrame) -> dict[str, list[float]]:
    """The published drops of top-1 by configuration."""
    if not len(comparison):
        return {}
    known = comparison[(comparison["metric"] == "top1") & comparison["published_drop"].notna()]
    return {str(name): list(rows) for name, rows in known.groupby("configuration")["published_drop"]}


def _dots(configurations: pd.DataFrame) -> str:
    """What the small dots are: of each mean that is over several runs one of these."""
    several = configurations[configurations["n"] > 1]
    drawn = are_drawn(several)
    return " or ".join([*["one seed"] * (not drawn.all()), *["one draw of widths"] * bool(drawn.any())])


def _legend(dots: str, published: bool) -> list[Line2D]:
    def proxy(label: str, **style: Any) -> Line2D:
        return Line2D([], [], linestyle="none", color=QUIET, label=label, **style)

    return [
        *([proxy(dots, marker="o", markersize=4, alpha=0.45)] if dots else []),
        proxy("mean and 95 % interval, marker by method", marker="s"),
        *(
            [
                proxy(
                    "published drop, of the source's network and data",
                    marker="D",
                    markersize=8,
                    markerfacecolor="none",
                )
            ]
            if published
            else []
        ),
    ]
