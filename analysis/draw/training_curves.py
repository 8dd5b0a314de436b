"""Training curves: training loss and test top-1 by epoch, the median of a method's runs and the band they lie in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.compare.configurations import FLOAT_BITS, by_network
from analysis.draw.style import RC, WIDE, legend_columns, line_styles
from analysis.read.curves import Curve

SHOWN = {"train_loss": "training loss (nats)", "top1": "test top-1 (%)"}
# More lines than this cannot be distinguished: the widths of a method then share one.
MOST_LINES = 8


@dataclass(frozen=True)
class Band:
    """Of the `n` runs behind a line: at each of `epochs` their median, smallest and largest value, NaN where no run
    has a finite one."""

    method: str
    label: str
    n: int
    epochs: NDArray[np.int32]
    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def bands(marked: pd.DataFrame, curves: Mapping[str, Curve], metric: str) -> list[Band]:
    """The curves of `metric` by line: a configuration's, or a label's where that would be more than MOST_LINES."""
    rows = marked[marked["key"].isin(list(curves))]
    by = ["label", "weight_bits", "act_bits"]
    if len(rows.drop_duplicates(by)) > MOST_LINES:
        by = ["label"]
    found = []
    for key, group in rows.groupby(by, sort=False):
        label, *bits = key
        name = label if not bits or bits[0] == FLOAT_BITS else f"{label} w{bits[0]}"
        if bits and bits[0] != FLOAT_BITS and bits[1] != FLOAT_BITS:
            name += f"a{bits[1]}"
        found.append(_band(group["method"].iloc[0], name, [curves[key] for key in group["key"]], metric))
    return found


def _band(method: str, label: str, curves: list[Curve], metric: str) -> Band:
    epochs = np.unique(np.concatenate([curve.epochs for curve in curves]))
    values = np.full((len(curves), len(epochs)), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[np.searchsorted(epochs, curve.epochs)] = curve.values[metric]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an epoch without a finite value stays NaN
        median, low, high = np.nanmedian(values, axis=0), np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    return Band(method, label, len(curves), epochs, median, low, high)


def figure(marked: pd.DataFrame, curves: Mapping[str, Curve]) -> Figure:
    """Two panels for each model and data set that was trained: loss on the left, top-1 on the right."""
    trained = marked[marked["key"].isin(list(curves))]
    panels = by_network(trained)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDE, 3.4 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), len(SHOWN), squeeze=False)
        handles: dict[str, Artist] = {}
        for line, (network, rows) in zip(grid, panels, strict=True):
            for axes, (metric, title) in zip(line, SHOWN.items(), strict=True):
                axes.set_title(network)
                axes.set_ylabel(title)
                handles |= _panel(axes, bands(rows, curves, metric))
        columns = legend_columns(handles, WIDE, 3)
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
        figure.set_figheight(3.4 * len(panels) + 0.3 + 0.2 * -(-len(handles) // columns))
    return figure


def _panel(axes: Axes, lines: list[Band]) -> dict[str, Artist]:
    handles: dict[str, Artist] = {}
    styles = line_styles((band.method, band.label) for band in lines)
    for band in lines:
        style = styles[band.method, band.label]
        axes.fill_between(
            band.epochs, band.low, band.high, color=style["color"], alpha=0.18, linewidth=0, zorder=2
        )
        small = style | {"markersize": style["markersize"] * 0.8}
        (handle,) = axes.plot(
            band.epochs, band.median, markevery=max(1, len(band.epochs) // 8), zorder=3, **small
        )
        handles[f"{band.label} (n = {band.n})"] = handle
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return handles
