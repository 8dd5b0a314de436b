"""What rounding each layer costs: bars by layer and width, a row a score or a run, weights and inputs apart."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis.compare.layer_widths import UNITS
from analysis.draw.layers import TITLES
from analysis.draw.style import BASELINE, QUIET, RC
from analysis.read.layer_records import TENSORS
from analysis.read.width_records import WidthRecord

Colour = tuple[float, float, float, float]

SHOWN_WIDTHS = 4
"""Bars of a layer."""
BESIDE = 26
"""Up to so many layers, weights and inputs stand beside each other."""
LAYER_INCHES, PANEL_INCHES = 0.22, 1.75
PALE = 0.4
"""How opaque a bar is that may be chance."""
LETTERS = 20
"""Of a line of a unit."""
BAR = 0.8
"""The part of a layer's room that its bars take."""


@dataclass(frozen=True)
class LayerBars:
    """Of a layer the height of a bar by tensor, "weight" or "input", and by bits. `errors`: one standard error of the
    heights by tensor, relative to them; above 1 the bars are pale. `absent`: why it has no bars."""

    layer: str
    scores: Mapping[str, Mapping[int, float]]
    errors: Mapping[str, float] = field(default_factory=dict)
    absent: str = ""


@dataclass(frozen=True)
class Row:
    """`title`, the layers, and what the heights of the bars are, with their unit."""

    title: str
    layers: Sequence[LayerBars]
    unit: str


def of_scores(scored: Sequence[tuple[Mapping[str, Any], WidthRecord]]) -> Figure:
    """The scores by which widths were chosen, a row for each of `layer_widths.scored`."""
    networks = [f"{row['model']} on {row['dataset']}, {row['of']}" for row, _ in scored]
    of_one = len(set(networks)) == 1
    rows = []
    for network, (row, record) in zip(networks, scored, strict=True):
        score = f"by {row['by']}" if of_one else f"{network}, by {row['by']}"
        rows.append(Row(score, _layers(record), UNITS.get(row["by"], "score")))
    return bars(rows, networks[0] if of_one else "")


def _layers(record: WidthRecord) -> list[LayerBars]:
    found = []
    for layer in record.layers:
        errors = {
            tensor: error / trace if trace > 0 else math.inf
            for tensor, (trace, error) in layer.traces.items()
        }
        absent = f"{layer.weight_bits} bits declared" if layer.declared else "not measured"
        found.append(LayerBars(layer.layer, layer.scores, errors, absent))
    return found


def bars(rows: Sequence[Row], title: str = "") -> Figure:
    """Bars on a logarithmic axis, the same for weights and inputs of a row; names of layers at the bottom."""
    most = max(len(row.layers) for row in rows)
    across = 2 if most <= BESIDE else 1
    names = max(len(layer.layer) for row in rows for layer in row.layers)
    is_alike = len({tuple(layer.layer for layer in row.layers) for row in rows}) == 1
    below = 0.075 * names
    down = len(rows) * 2 // across
    with matplotlib.rc_context(RC):
        width = across * max(0.5 + LAYER_INCHES * most, 3.4) + 0.5
        high = PANEL_INCHES * down + below * (1 if is_alike else down) + 0.8
        figure = Figure(figsize=(width, high), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex="col" if is_alike else False)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        panels = [(row, tensor) for row in rows for tensor in TENSORS]
        every = sorted(
            {bits for row in rows for layer in row.layers for own in layer.scores.values() for bits in own}
        )
        shown = shown_widths(every)
        marks: dict[str, Artist] = {}
        for place, (axes, (row, tensor)) in enumerate(zip(grid.flat, panels, strict=True)):
            axes.set_title(f"{row.title}: {TITLES[tensor]}", fontsize=9)
            axes.set_ylabel(textwrap.fill(row.unit, LETTERS) if place % across == 0 else "", fontsize=8)
            marks |= _panel(axes, row, tensor, shown)
        handles: list[Artist] = [
            Patch(color=_colour(place, shown), label=f"{bits} bits") for place, bits in enumerate(shown)
        ]
        figure.legend(handles=[*handles, *marks.values()], loc="outside lower center", ncols=6, fontsize=8)
    return figure


def _panel(axes: Axes, row: Row, tensor: str, shown: Sequence[int]) -> dict[str, Artist]:
    """Draw a panel; gives what its marks mean, by their names, for the legend."""
    floor, top = _ends(row, shown)
    marks: dict[str, Artist] = {}
    axes.set_yscale("log")
    for number, bits in enumerate(shown):
        for place, layer in enumerate(row.layers):
            if bits in (heights := layer.scores.get(tensor, {})):
                middle = place + (number - (len(shown) - 1) / 2) * BAR / len(shown)
                error = layer.errors.get(tensor, math.nan)
                marks |= _bar(
                    axes, (middle, heights[bits], error), floor, BAR / len(shown), _colour(number, shown)
                )
    for place, layer in enumerate(row.layers):
        if layer.absent and not layer.scores.get(tensor):
            axes.text(place, 0.04, layer.absent, transform=axes.get_xaxis_transform(), rotation=90, ha="center",
                      va="bottom", fontsize=7, color=QUIET)  # fmt: skip
    axes.set_ylim(floor, top)
    axes.set_xlim(-0.6, len(row.layers) - 0.4)
    axes.set_xticks(
        np.arange(len(row.layers)), [layer.layer for layer in row.layers], rotation=90, fontsize=8
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda score, _: f"{score:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", visible=False)
    return marks


def _bar(
    axes: Axes, bar: tuple[float, float, float], floor: float, width: float, colour: Colour
) -> dict[str, Artist]:
    """Draw a bar, given as its middle, its height and the relative error of that, NaN where it is not known."""
    middle, height, error = bar
    if height <= 0:
        style: dict[str, Any] = {"marker": "o", "markersize": 2.5, "markerfacecolor": "none", "color": QUIET,
                                 "linestyle": "none", "markeredgewidth": 0.7}  # fmt: skip
        axes.plot(middle, floor * 1.25, **style)
        return {"zero": Line2D([], [], label="not above zero", **style)}
    face = (*colour[:3], PALE if error > 1 else 1.0)
    axes.bar(middle, max(height, floor) - floor, width, bottom=floor, color=[face])
    if error <= 1:
        ends = [max(height * (1 - error), floor), height * (1 + error)]
        axes.plot([middle, middle], ends, color=BASELINE, linewidth=0.7)
        return {"error": Line2D([], [], color=BASELINE, linewidth=0.7, label="± one standard error")}
    return {"pale": Patch(color=QUIET, alpha=PALE, label="below its standard error")} if error > 1 else {}


def _ends(row: Row, shown: Sequence[int]) -> tuple[float, float]:
    """Of the axis of both tensors of a row."""
    positive = [
        score
        for layer in row.layers
        for own in layer.scores.values()
        for bits, score in own.items()
        if score > 0 and bits in shown
    ]
    return min(positive, default=1e-3) / 2, max(positive, default=1.0) * 3


def _colour(place: int, shown: Sequence[int]) -> Colour:
    red, green, blue, opaque = matplotlib.colormaps["viridis"](0.9 * place / max(len(shown) - 1, 1))
    return red, green, blue, opaque


def shown_widths(every: Sequence[int]) -> list[int]:
    """At most SHOWN_WIDTHS of ascending widths: the narrowest, which differ most, and the widest.

    >>> shown_widths([2, 3, 4, 5, 6, 8])
    [2, 3, 4, 8]
    """
    return list(every) if len(every) <= SHOWN_WIDTHS else [*every[: SHOWN_WIDTHS - 1], every[-1]]
