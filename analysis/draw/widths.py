"""Widths by layer: what chosen widths gain, and how they lie along the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from analysis.compare.configurations import widths
from analysis.compare.widths import by_group, first_of_each
from analysis.draw.axes import drops, shown
from analysis.draw.cost import cost_axis
from analysis.draw.layers import CELL_INCHES, ROW_INCHES, TITLES, cells
from analysis.draw.style import BASELINE, QUIET, RC, laid_out
from analysis.read.budgets import RANDOM, UNIFORM
from analysis.read.layer_records import TENSORS
from analysis.read.width_records import WidthRecord

Records = Mapping[str, WidthRecord]

MOST_ROWS = 24
COSTS = {"size_mb": "size of the model as stored (MB)", "bops": "bit operations an image (billions)"}
STYLES = {
    "noise": ("#D55E00", "o"),
    "logits": ("#0072B2", "s"),
    "gradient": ("#009E73", "^"),
    "hessian": ("#CC79A7", "v"),
    "loss": ("#E69F00", "p"),
}
"""Colour and marker of each score: Okabe and Ito's, which methods have too, so that the page knows them."""
NAME_PIXELS = 34
"""That a name above a panel needs."""


def front(points: pd.DataFrame) -> Figure:
    """Drop from float against size and against bit operations, a row of two panels for each network and method:
    uniform widths joined by a line and named, those chosen by each score by another, and random ones pale."""
    groups = by_group(points)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(10.4, 4.6 * len(groups)), layout="constrained")
        grid = figure.subplots(len(groups), 2, squeeze=False)
        for line, (title, rows) in zip(grid, groups, strict=True):
            for axes, cost in zip(line, COSTS, strict=True):
                axes.set_title(title if cost == "size_mb" else "", fontsize=10, pad=18)
                _front(axes, rows, cost)
            line[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # outside: points may lie anywhere
        laid_out(figure)  # names are placed on the layout as it is
        for line, (_, rows) in zip(grid, groups, strict=True):
            for axes, cost in zip(line, COSTS, strict=True):
                _name_uniform(axes, rows, cost)
    return figure


def _front(axes: Axes, rows: pd.DataFrame, cost: str) -> None:
    for by, mine in rows.groupby("by", sort=False):
        if by == RANDOM:
            x, y = _places(mine, cost)
            axes.plot(x, y, ".", color=QUIET, alpha=0.35, markersize=4, label="random", zorder=1)
            continue
        line = _line(mine, cost)
        if by == UNIFORM:
            axes.plot(
                *line, color=BASELINE, linewidth=1.4, marker="D", markersize=4, label="uniform", zorder=5
            )
            continue
        colour, marker = STYLES.get(str(by), (QUIET, "X"))
        axes.plot(*line, color=colour, linewidth=1, zorder=3)
        axes.plot(*_places(mine, cost), marker, color=colour, markersize=7, markerfacecolor="none",
                  markeredgewidth=1.5, zorder=4)  # fmt: skip
        axes.plot([], [], color=colour, linewidth=1, marker=marker, markersize=7, markerfacecolor="none",
                  markeredgewidth=1.5, label=f"chosen by {by}")  # fmt: skip
    drops(axes, rows["drop"], "y")
    cost_axis(axes, rows[cost] / _unit(cost))
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(COSTS[cost])


def _name_uniform(axes: Axes, rows: pd.DataFrame, cost: str) -> None:
    """The widths of uniform networks above the panel, each with a thin line down; one without room is left out."""
    uniform = rows[rows["by"] == UNIFORM].drop_duplicates("configuration").sort_values(cost, ascending=False)
    xs, _ = _places(uniform, cost)
    named: list[tuple[float, str]] = []
    to_pixels = axes.transData.transform
    for x, name in zip(xs, map(widths, uniform.to_dict("records")), strict=True):
        if all(abs(to_pixels((x, 1))[0] - to_pixels((other, 1))[0]) > NAME_PIXELS for other, _ in named):
            named.append((x, name))
            axes.axvline(x, color=QUIET, linewidth=0.6, linestyle=(0, (1, 3)), zorder=0)
            axes.text(x, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8,
                      color=QUIET)  # fmt: skip


def _line(mine: pd.DataFrame, cost: str) -> tuple[list[float], list[float]]:
    """The means of each budget, from small to large."""
    means = mine.groupby("configuration")[[cost, "drop"]].mean().sort_values(cost)
    return _places(means, cost)


def _places(rows: pd.DataFrame, cost: str) -> tuple[list[float], list[float]]:
    return list(rows[cost] / _unit(cost)), [shown(drop) for drop in rows["drop"]]


def _unit(cost: str) -> float:
    return 1e9 if cost == "bops" else 1.0


def along(points: pd.DataFrame, records: Records) -> Figure:
    """The bits of each layer's weight, and below of its input, in the network's order: a row for each chosen run of
    the lowest seed, with its top-1, at most MOST_ROWS of a network and method."""
    groups = [
        (title, group.head(MOST_ROWS).to_dict("records")) for title, group in by_group(first_of_each(points))
    ]
    panels = [(title, rows, tensor) for title, rows in groups for tensor in TENSORS]
    most = max(len(records[row["key"]].layers) for _, rows, _ in panels for row in rows)
    heights = [ROW_INCHES * len(rows) + 0.3 for _, rows, _ in panels]
    names = [layer.layer for _, rows, _ in panels for row in rows for layer in records[row["key"]].layers]
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        below = 0.075 * max(map(len, names))
        size = (2.6 + CELL_INCHES * most, sum(heights) + below * len(groups) + 0.3 * len(panels))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, rows, tensor) in zip(grid, panels, strict=True):
            axes.set_title(f"{title}: {TITLES[tensor]}")
            _rows(axes, rows, records, tensor)
            if tensor != TENSORS[-1]:
                axes.set_xticklabels([])
    return figure


def _rows(axes: Axes, rows: Sequence[Mapping[Any, Any]], records: Records, tensor: str) -> None:
    colours, norm = matplotlib.colormaps["viridis"], BoundaryNorm([0, 2.5, 3.5, 4.5, 5.5, 6.5, 8.5, 33], 256)
    names = [layer.layer for layer in records[rows[0]["key"]].layers]
    values = np.full((len(rows), len(names)), np.nan)
    for number, row in enumerate(rows):
        for layer in records[row["key"]].layers:
            if layer.layer in names:
                bits = layer.weight_bits if tensor == "weight" else layer.input_bits
                values[number, names.index(layer.layer)] = bits
    cells(axes, values, colours, norm, values)
    middle = np.arange(len(rows)) + 0.5
    axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90, fontsize=8)
    axes.set_yticks(middle, [row["name"] for row in rows], fontsize=8)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(middle, [f"{row['top1']:.2f} %" for row in rows], fontsize=8)
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    axes.text(1.005, 1.0, "top-1", transform=axes.transAxes, fontsize=8, va="bottom", color=QUIET)
    budgets = [(row["size_bits"], row["bops_per_mac"]) for row in rows]
    for number, (above, under) in enumerate(pairwise(budgets), 1):
        if above != under:
            axes.axhline(number, color="#ffffff", linewidth=2)
