"""What rounding does to each layer: a heat map of the noise, and how values lie in the ranges chosen for them."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Colormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.compare.configurations import by_network
from analysis.compare.layers import NEAREST
from analysis.draw.axes import minus
from analysis.draw.style import QUIET, RC, contrast, style_of
from analysis.read.layer_records import TENSORS

Record = dict[str, Any]

TITLES = {"weight": "weights", "input": "inputs"}
# Colours inside a cell stay as they are on a dark page: these two are none of those that follow it.
DARK_TEXT, LIGHT_TEXT = "#111111", "#fefefe"
DECIBELS = tuple(range(0, 55, 5))
CELL_INCHES, NARROW_INCHES, ROW_INCHES = 0.4, 0.19, 0.3
# More layers than this have no room for a number each.
NUMBERED = 26
LABEL_LETTERS = 36
METHODS = 4
INNER: Any = (0, (2, 2))
"""How the ends of the range of the narrowest channel are dashed."""
KEY_INCHES = 0.22
"""Of a line of the legend below histograms."""


def heat_map(shown: pd.DataFrame, layers: pd.DataFrame) -> Figure:
    """SQNR of weights, and below of inputs: a row a configuration, a column a layer in the network's order.

    `shown` and `layers` as in `compare.layers.Evidence`. A cell without a number is empty: nothing is
    rounded there, or it is not finite. A configuration that recorded nothing shows why.
    """
    panels = [
        (f"{title}, {TITLES[tensor]}", *_rows(group, layers, tensor))
        for title, group in by_network(shown)
        for tensor in TENSORS
    ]
    panels = [panel for panel in panels if len(panel[1])]
    most = max(len(values.columns) for _, _, values in panels)
    cell = CELL_INCHES if most <= NUMBERED else NARROW_INCHES
    heights = [ROW_INCHES * len(rows) + 0.3 for _, rows, _ in panels]
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        below = 0.6 + 0.075 * max(len(name) for *_, values in panels for name in values.columns)
        size = (3.4 + cell * most + 0.9, sum(heights) + below * len(panels))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        colours = matplotlib.colormaps["viridis"]
        norm = BoundaryNorm(DECIBELS, colours.N, extend="both")
        for axes, (title, rows, values) in zip(grid, panels, strict=True):
            axes.set_title(title)
            decibels = values.to_numpy()
            mesh = cells(axes, decibels, colours, norm, decibels if most <= NUMBERED else None)
            axes.set_xticks(np.arange(len(values.columns)) + 0.5, values.columns, rotation=90, fontsize=8)
            names = [textwrap.fill(row["point"], LABEL_LETTERS) for row in rows]
            axes.set_yticks(np.arange(len(rows)) + 0.5, names, fontsize=8, linespacing=0.95)
            for index, row in enumerate(rows):
                if row["problem"]:
                    axes.text(
                        0.2, index + 0.5, row["problem"], va="center", color=QUIET, fontsize=8, style="italic"
                    )
        figure.colorbar(
            mesh, ax=list(grid), label="SQNR (dB)", shrink=min(1.0, 3 / size[1]), aspect=14, pad=0.01
        )
    return figure


def _rows(group: pd.DataFrame, layers: pd.DataFrame, tensor: str) -> tuple[list[Record], pd.DataFrame]:
    """The configurations of a network of which a `tensor` is rounded or nothing is known, and their SQNR by layer."""
    mine = layers[layers["configuration"].isin(group["configuration"])]
    values = table(mine, tensor, "sqnr_db").reindex(columns=list(dict.fromkeys(mine["layer"])))
    rows = [
        row
        for row in group.to_dict("records")
        if row["problem"] or values.reindex([row["configuration"]]).notna().to_numpy().any()
    ]
    own = values.reindex([row["configuration"] for row in rows])
    return (rows, own) if own.notna().to_numpy().any() else ([], own)


def table(layers: pd.DataFrame, tensor: str, column: str) -> pd.DataFrame:
    """`column` of a tensor by configuration and layer."""
    mine = layers[layers["tensor"] == tensor].drop_duplicates(["configuration", "layer"])
    return mine.pivot(index="configuration", columns="layer", values=column).astype("float64")


def cells(
    axes: Axes, values: Any, colours: Colormap, norm: BoundaryNorm, numbers: Any = None, layout: str = ".0f"
) -> Any:
    """Draw a matrix from the top, NaN empty, and in its cells the `numbers`, where they are given, in this layout."""
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, norm=norm, edgecolors="none")
    axes.set_ylim(len(values), 0)
    axes.tick_params(length=0, left=False, bottom=False)
    for (row, column), value in np.ndenumerate(values) if numbers is not None else ():
        if np.isfinite(value):
            paper = to_hex(colours(norm(value)))
            ink = LIGHT_TEXT if contrast(paper, LIGHT_TEXT) > contrast(paper, DARK_TEXT) else DARK_TEXT
            text = minus(format(numbers[row, column], layout))
            # A text inside a cell needs no room of its own, and to measure hundreds of them takes seconds.
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color=ink,
                      in_layout=False)  # fmt: skip
    return mesh


def selected(layers: pd.DataFrame) -> list[str]:
    """The first layer of a network, the one whose worse tensor has the lowest median SQNR, and the last."""
    names = list(dict.fromkeys(layers["layer"]))
    worse = layers.groupby(["layer", "configuration"], sort=False)["sqnr_db"].min()
    noisy = worse.groupby("layer", sort=False).median().drop([names[0], names[-1]], errors="ignore").dropna()
    return list(dict.fromkeys([names[0], *([noisy.idxmin()] if len(noisy) else []), names[-1]]))


def compared(shown: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """At most METHODS rows of a network's `shown`, in its order, that have a range: of each method the most accurate
    at its width nearest to NEAREST bits, methods that round activations first."""
    known = layers[layers["low"].notna()]
    rows = shown[shown["configuration"].isin(known["configuration"])]
    both = rows["configuration"].isin(known[known["tensor"] == "input"]["configuration"])
    rows = rows.assign(alone=~both, far=(rows["weight_bits"] - NEAREST).abs())
    rows = rows.sort_values(["alone", "far", "top1"], ascending=[True, True, False], kind="stable")
    return rows.drop_duplicates("method").head(METHODS).sort_index()


def histograms(shown: pd.DataFrame, layers: pd.DataFrame) -> Figure:
    """Weights and inputs of the selected layers before rounding, a column a configuration, with the range it chose; a
    legend below."""
    lines: list[tuple[list[Record], str, str, pd.DataFrame]] = []
    for _, group in by_network(shown):
        mine = layers[layers["configuration"].isin(group["configuration"])]
        columns = compared(group, mine).to_dict("records")
        for layer in selected(mine) if columns else ():
            lines += [(columns, layer, tensor, mine) for tensor in TENSORS]
    width = max(len(columns) for columns, *_ in lines)
    with matplotlib.rc_context(RC):
        room = KEY_INCHES * (1 if width > 1 else 3)
        size = (2.7 * width + 0.9, 1.75 * len(lines) + 0.3 + room)
        figure = Figure(figsize=size)
        grid = figure.subplots(len(lines), width, squeeze=False, gridspec_kw=_places(width, len(lines), room))
        for line, (columns, layer, tensor, mine) in zip(grid, lines, strict=True):
            wanted = mine[(mine["layer"] == layer) & (mine["tensor"] == tensor)].set_index("configuration")
            for axes in line[len(columns) :]:
                axes.set_axis_off()
            for axes, row in zip(line, columns, strict=False):
                known = row["configuration"] in wanted.index
                _histogram(axes, row, wanted.loc[[row["configuration"]]].iloc[0] if known else None)
            line[0].set_ylabel(f"{layer}\n{TITLES[tensor]}", fontsize=8)
        figure.legend(handles=_key(grid), loc="lower left", ncols=3 if width > 1 else 1, fontsize=8,
                      bbox_to_anchor=(0.9 / size[0], 0.0))  # fmt: skip
    return figure


def _key(grid: Any) -> list[Artist]:
    """What is drawn in the panels of histograms."""
    found: list[Artist] = [
        Patch(facecolor=QUIET, alpha=0.4, label="values before rounding"),
        Line2D([], [], color=QUIET, linewidth=1.6, label="ends of the range"),
    ]
    if any(line.is_dashed() for axes in grid.flat for line in axes.lines):
        words = "ends of the range of the narrowest channel"
        found.append(Line2D([], [], color=QUIET, linewidth=1.2, linestyle=INNER, label=words))
    return found


def _places(columns: int, rows: int, below: float) -> dict[str, float]:
    """Where panels of one size stand, in inches from each other, with as many inches free `below`; a layout that
    measures every label takes as long as all else that is drawn."""
    wide, high, gap = 2.7 * columns + 0.9, 1.75 * rows + 0.3 + below, 0.64
    left, right, top, bottom = 1.0, 0.12, 0.42, 0.28 + below
    panel = (
        (wide - left - right - gap * (columns - 1)) / columns,
        (high - top - bottom - gap * (rows - 1)) / rows,
    )
    return {
        "left": left / wide, "right": 1 - right / wide, "top": 1 - top / high, "bottom": bottom / high,
        "wspace": gap / panel[0], "hspace": gap / panel[1],
    }  # fmt: skip


def _histogram(axes: Axes, row: Record, tensor: Any) -> None:
    colour = style_of(row["method"]).colour
    axes.tick_params(labelsize=7)
    if tensor is None or tensor["counts"] is None:
        axes.set_title(f"{row['point']}\nnot recorded", fontsize=8, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    counts, low, high = tensor["counts"], tensor["smallest"], tensor["largest"]
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.stairs(np.maximum(counts, 0.5), np.linspace(low, high, len(counts) + 1), baseline=0.5, fill=True,
                color=colour, alpha=0.4)  # fmt: skip
    axes.set_ylim(0.5, counts.max() * 2)
    axes.grid(axis="y", visible=False)
    ends = [end for end in (tensor["low"], tensor["high"]) if np.isfinite(end)]
    # An end far beyond is given as a number alone: drawn, it would squeeze the values into a line.
    room = 1.25 * (high - low)
    near = [end for end in ends if low - room <= end <= high + room]
    axes.set_xlim(min([low, *near]) - 0.04 * room, max([high, *near]) + 0.04 * room)
    for end in near:
        axes.axvline(end, color=colour, linewidth=1.6)
    for end in (tensor["low_inner"], tensor["high_inner"]):
        if end not in ends and low - room <= end <= high + room:
            axes.axvline(end, color=colour, linewidth=1.2, linestyle=INNER)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(
        f"{textwrap.shorten(row['point'], 30, placeholder='…')}\n{words(tensor)}", fontsize=8, loc="left"
    )


def words(tensor: Any) -> str:
    """The noise and the range of one tensor: `17.3 dB, 0.1 to 0.42`."""
    noise = "no rounding" if np.isnan(tensor["sqnr_db"]) else f"{tensor['sqnr_db']:.1f} dB"
    span = f", {tensor['low']:.3g} to {tensor['high']:.3g}" if np.isfinite(tensor["low"]) else ", no range"
    return minus(f"{noise}{span}")
