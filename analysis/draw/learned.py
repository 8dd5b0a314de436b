"""How step sizes and clips move while a quantized network trains: a line for each layer, by epoch."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.draw.style import LINES, RC
from analysis.read.curves import LEARNED, Curve

SIDES = {"weight": "weights", "input": "inputs"}
TITLE_LETTERS = 42
"""Of a line of a panel's title; a longer title goes on below."""
COLOURS = matplotlib.colormaps["viridis"]


@dataclass(frozen=True)
class Line:
    """A parameter: `values` before training and after each epoch, NaN where none was recorded."""

    layer: str
    side: str
    parameter: str
    values: NDArray[np.float32]

    @property
    def relative(self) -> NDArray[np.float64]:
        """The values over the first that is known; NaN where that is 0, and beyond zero."""
        values = self.values.astype(np.float64)
        known = values[np.isfinite(values)]
        if not len(known) or not known[0]:
            return np.full(len(values), np.nan)
        ratio: NDArray[np.float64] = values / known[0]
        return np.where(ratio > 0, ratio, np.nan)


def lines(curve: Curve) -> list[Line]:
    """The parameters that a run learned, by the names of their metrics: `learned_layer1_0_conv1_weight_scale`."""
    found = []
    for name, values in curve.learned.items():
        if match := re.fullmatch(rf"{LEARNED}(.+)_(weight|input)_([a-z]+)", name):
            layer, side, parameter = match.groups()
            found.append(Line(layer, side, parameter, values))
    return found


def figure(shown: Mapping[str, Curve], order: Sequence[str] = ()) -> Figure:
    """A row for each curve of `shown`, by its title: weights on the left, inputs on the right.

    order: the names of the layers along the network, with `_` for `.`; without it they are sorted.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(9.6, 2.6 * len(shown) + 0.9), layout="constrained")
        grid = figure.subplots(len(shown), len(SIDES), squeeze=False)
        styles: dict[str, object] = {}
        layers: list[str] = []
        for row, (title, curve) in zip(grid, shown.items(), strict=True):
            drawn = lines(curve)
            here = list(dict.fromkeys(line.layer for line in drawn))
            here.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
            layers = max(layers, here, key=len)
            for axes, (side, words) in zip(row, SIDES.items(), strict=True):
                axes.set_title(textwrap.fill(f"{title}, {words}", TITLE_LETTERS, break_on_hyphens=False))
                mine = [line for line in drawn if line.side == side]
                for line in mine:
                    styles.setdefault(line.parameter, LINES[len(styles) % len(LINES)])
                _panel(axes, mine, here, np.array([0, *curve.epochs]), styles)
        names = Normalize(0, max(1, len(layers) - 1))
        bar = figure.colorbar(ScalarMappable(names, COLOURS), ax=grid, fraction=0.03, pad=0.02)
        ends = [0, len(layers) - 1] if len(layers) > 1 else [0]
        bar.set_ticks(ends, labels=[layers[place].replace("_", ".") if layers else "" for place in ends])
        handles = [Line2D([], [], color="#444444", linestyle=style) for style in styles.values()]  # type: ignore[arg-type]
        if len(styles) > 1:
            figure.legend(handles, list(styles), loc="outside lower center", ncols=4)
    return figure


def _panel(
    axes: Axes,
    drawn: Sequence[Line],
    layers: Sequence[str],
    epochs: NDArray[np.int64],
    styles: Mapping[str, object],
) -> None:
    for line in drawn:
        colour = COLOURS(layers.index(line.layer) / max(1, len(layers) - 1))
        axes.plot(epochs, line.relative, color=colour, linestyle=styles[line.parameter], linewidth=1.1)
    if not any(np.isfinite(line.relative).any() for line in drawn):
        axes.text(0.5, 0.5, "nothing learns", transform=axes.transAxes, ha="center", color="#666666")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_xlabel("epoch")
    axes.set_ylabel("times its first value")
    axes.ticklabel_format(axis="y", useOffset=False)  # "+1" above the axis would lie over the title
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
