"""Which class is taken for which: the float network's confusion, and what damage changes in it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from analysis.compare.layers import Confusion
from analysis.draw.layers import cells
from analysis.draw.style import RC
from analysis.read.layer_records import Counts

LARGEST = 30
"""Classes that a figure has room for."""
NUMBERED = 12
"""Classes whose cells have room for a number."""
PERCENTS = (0.1, 0.3, 1, 3, 10, 30, 100)
CHANGES = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100)


def figure(found: Sequence[Confusion]) -> Figure:
    """For each network its confusion, in percent of the images of the true class, and beside it by how much that of
    `damaged` differs. Networks of more than LARGEST classes are left out."""
    drawn = [one for one in found if len(one.classes) <= LARGEST]
    side = max(len(one.classes) * (0.42 if len(one.classes) <= NUMBERED else 0.22) for one in drawn)
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        names = 0.075 * max(len(name) for one in drawn for name in one.classes)
        size = (2 * (side + names) + 2.8, (side + names + 1.1) * len(drawn))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(drawn), 2, squeeze=False)
        for (left, right), one in zip(grid, drawn, strict=True):
            _panel(left, one, f"{one.network}: float", one.baseline, PERCENTS, "viridis")
            if one.damaged is None:
                right.set_axis_off()
            else:
                _panel(right, one, f"{one.name} minus float", one.damaged - one.baseline, CHANGES, "PuOr_r")
    return figure


def _panel(
    axes: Axes, one: Confusion, title: str, images: Counts, bounds: Sequence[float], colours: str
) -> None:
    share = np.where(images != 0, 100 * images / np.maximum(one.baseline.sum(1, keepdims=True), 1), np.nan)
    palette = matplotlib.colormaps[colours]
    norm = BoundaryNorm(bounds, palette.N, extend="min" if bounds is PERCENTS else "neither")
    centres = np.arange(len(one.classes)) + 0.5
    mesh = cells(axes, share, palette, norm, share if len(centres) <= NUMBERED else None, ".1f")
    axes.set_title(textwrap.fill(title, 44))
    axes.set_xticks(centres, one.classes, rotation=90 * (max(map(len, one.classes)) > 3), fontsize=8)
    axes.set_yticks(centres, one.classes, fontsize=8)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    label = "% of the images of the true class"
    label = f"change ({label})" if bounds is CHANGES else label
    assert axes.figure is not None
    axes.figure.colorbar(mesh, ax=axes, label=label, shrink=0.7, aspect=22, pad=0.02, spacing="uniform",
                         ticks=bounds, format="{x:g}")  # fmt: skip
