"""Widths by layer: what each layer costs, what chosen widths gain, and how they lie along the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from analysis.compare.configurations import by_network
from analysis.compare.widths import RANDOM, UNIFORM, chosen
from analysis.draw.cost import cost_axis
from analysis.draw.layers import CELL_INCHES, ROW_INCHES, TITLES, cells
from analysis.draw.style import BASELINE, QUIET, RC, style_of
from analysis.read.layer_records import TENSORS
from analysis.read.width_records import LayerWidth, WidthRecord

Records = Mapping[str, WidthRecord]

SHOWN_WIDTHS = 4
"""Bars of a layer: the narrowest, the widest, and what lies between as far as it fits."""
MOST_ROWS = 24
COSTS = {"bops": "bit operations an image (billions)", "size_mb": "size of the model as stored (MB)"}


def scored(points: pd.DataFrame, records: Records) -> list[tuple[str, WidthRecord]]:
    """(title, record) of the first run of each network, method and score that recorded what its layers cost."""
    found: dict[tuple[Any, ...], tuple[str, WidthRecord]] = {}
    for row in chosen(points).to_dict("records"):
        record = records[row["key"]]
        title = f"{row['model']} on {row['dataset']}, {row['of']}, score {row['by']}"
        if any(layer.scores[tensor] for layer in record.layers for tensor in TENSORS):
            found.setdefault((row["model"], row["dataset"], row["of"], row["by"]), (title, record))
    return list(found.values())


def layer_costs(points: pd.DataFrame, records: Records) -> Figure:
    """The bars of the scores by which widths were chosen, weights above inputs; a layer whose widths are declared has
    none. A panel for each score."""
    return bars(
        [
            (f"{title}: {TITLES[tensor]}", record.layers, tensor, "score")
            for title, record in scored(points, records)
            for tensor in TENSORS
        ]
    )


@dataclass(frozen=True)
class LayerBars:
    """Of a layer the height of a bar by tensor, "weight" or "input", and by bits."""

    layer: str
    scores: Mapping[str, Mapping[int, float]]


Panel = tuple[str, Sequence[LayerWidth | LayerBars], str, str]
"""(title, layers, tensor, what the bars are)."""


def bars(panels: Sequence[Panel]) -> Figure:
    """A bar for each layer and width on a logarithmic axis, panel below panel."""
    most = max(len(layers) for _, layers, *_ in panels)
    with matplotlib.rc_context(RC):
        below = 0.075 * max(len(layer.layer) for _, layers, *_ in panels for layer in layers)
        size = (max(1.6 + 0.42 * most + 1.2, 7.5), (1.9 + below) * len(panels))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, (title, layers, tensor, what) in zip(grid, panels, strict=True):
            axes.set_title(title, fontsize=9)
            axes.set_ylabel(what)
            _bars(axes, layers, tensor)
    return figure


def _bars(axes: Axes, layers: Sequence[LayerWidth | LayerBars], tensor: str) -> None:
    every = sorted({bits for layer in layers for bits in layer.scores[tensor]})
    widths = shown_widths(every)
    colours = matplotlib.colormaps["viridis"]
    positive = [
        score
        for layer in layers
        for bits, score in layer.scores[tensor].items()
        if score > 0 and bits in widths
    ]
    axes.set_yscale("log")
    floor = min(positive, default=1e-3) / 2
    for number, bits in enumerate(widths):
        heights = [max(layer.scores[tensor].get(bits, 0.0), floor) for layer in layers]
        places = np.arange(len(layers)) + (number - (len(widths) - 1) / 2) * 0.8 / len(widths)
        colour = colours(0.9 * number / max(len(widths) - 1, 1))
        axes.bar(places, heights, 0.8 / len(widths), bottom=0, color=[colour], label=f"{bits} bits")
    axes.set_ylim(floor, max(positive, default=1.0) * 2)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_xticks(np.arange(len(layers)), [layer.layer for layer in layers], rotation=90, fontsize=8)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda score, _: f"{score:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", visible=False)
    if widths:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def shown_widths(every: Sequence[int]) -> list[int]:
    """At most SHOWN_WIDTHS of ascending widths, the ends among them.

    >>> shown_widths([2, 3, 4, 5, 6, 8])
    [2, 3, 5, 8]
    """
    if len(every) <= SHOWN_WIDTHS:
        return list(every)
    places = np.linspace(0, len(every) - 1, SHOWN_WIDTHS).astype(int)
    return [every[place] for place in places]


def front(points: pd.DataFrame) -> Figure:
    """Top-1 against size and against bit operations, a row of two panels for each network and method: uniform widths
    joined by a line, those chosen by each score by another, and random ones faint."""
    groups = [
        (f"{title}, {of}", rows)
        for title, group in by_network(points)
        for of, rows in group.groupby("of", sort=False)
    ]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(10.4, 4.2 * len(groups)), layout="constrained")
        grid = figure.subplots(len(groups), 2, squeeze=False)
        for line, (title, rows) in zip(grid, groups, strict=True):
            for axes, cost in zip(line, ("size_mb", "bops"), strict=True):
                _front(axes, rows, cost)
                axes.set_title(title if cost == "size_mb" else "", fontsize=10)
            line[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # outside: points may lie anywhere
    return figure


def _front(axes: Axes, rows: pd.DataFrame, cost: str) -> None:
    unit = 1e9 if cost == "bops" else 1.0
    for by, mine in rows.groupby("by", sort=False):
        x, y = mine[cost] / unit, mine["top1"]
        if by == UNIFORM:
            order = np.argsort(x.to_numpy())
            axes.plot(
                x.iloc[order], y.iloc[order], "D-", color=BASELINE, label="uniform", markersize=5, zorder=3
            )
            for at, height, weight, act in zip(x, y, mine["weight_bits"], mine["act_bits"], strict=True):
                axes.annotate(
                    f"w{weight}a{act}",
                    (at, height),
                    xytext=(4, -10),
                    textcoords="offset points",
                    fontsize=7,
                    color=QUIET,
                )
        elif by == RANDOM:
            axes.plot(x, y, ".", color=QUIET, alpha=0.5, label="random", zorder=2)
        else:
            style = style_of(f"widths by {by}")
            axes.plot(x, y, style.marker, color=style.colour, label=f"chosen by {by}", zorder=4)
            front = mine.groupby("size_bits")[[cost, "top1"]].mean()
            axes.plot(front[cost] / unit, front["top1"], color=style.colour, linewidth=1, zorder=3)
    axes.set_ylabel("top-1 (%)")
    cost_axis(axes, rows[cost] / unit)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(COSTS[cost])


def along(points: pd.DataFrame, records: Records) -> Figure:
    """The bits of each layer's weight, and below of its input, in the network's order: a row for each chosen run of
    the lowest seed, at most MOST_ROWS of a network."""
    panels = [
        (f"{title}, {TITLES[tensor]}", group.head(MOST_ROWS).to_dict("records"), tensor)
        for title, group in by_network(first_of_each(points))
        for tensor in TENSORS
    ]
    most = max(len(records[row["key"]].layers) for _, rows, _ in panels for row in rows)
    heights = [ROW_INCHES * len(rows) + 0.3 for _, rows, _ in panels]
    names = [layer.layer for _, rows, _ in panels for row in rows for layer in records[row["key"]].layers]
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        below = 0.6 + 0.075 * max(map(len, names))
        size = (3.6 + CELL_INCHES * most, sum(heights) + below * len(panels))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        colours, norm = (
            matplotlib.colormaps["viridis"],
            BoundaryNorm([0, 2.5, 3.5, 4.5, 5.5, 6.5, 8.5, 33], 256),
        )
        for axes, (title, rows, tensor) in zip(grid, panels, strict=True):
            axes.set_title(title)
            first = records[rows[0]["key"]].layers
            values = np.full((len(rows), len(first)), np.nan)
            for number, row in enumerate(rows):
                for layer in records[row["key"]].layers:
                    place = next((n for n, one in enumerate(first) if one.layer == layer.layer), None)
                    if place is not None:
                        bits = layer.weight_bits if tensor == "weight" else layer.input_bits
                        values[number, place] = bits
            cells(axes, values, colours, norm, values)
            axes.set_xticks(
                np.arange(len(first)) + 0.5, [layer.layer for layer in first], rotation=90, fontsize=8
            )
            axes.set_yticks(np.arange(len(rows)) + 0.5, [row["name"] for row in rows], fontsize=8)
    return figure


def first_of_each(points: pd.DataFrame) -> pd.DataFrame:
    """The chosen rows of the lowest seed of each name."""
    ordered = chosen(points).sort_values("seed", kind="stable")
    return ordered.drop_duplicates(["model", "dataset", "name"]).sort_index()
