"""The lines of accuracy by bits: which configurations are points of one, and how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.compare.configurations import FLOAT_BITS
from analysis.draw.axes import bar, ends, shown

Record = dict[str, Any]


def named(configurations: pd.DataFrame) -> list[str]:
    """The line that each configuration is a point of: its label, and how wide activations are wherever that
    does not follow from the width of the weights."""
    rows = configurations.to_dict("records")
    rules: dict[str, set[str]] = {}
    for row in rows:
        rules.setdefault(row["label"], set()).add(_activations(row))
    return [
        row["label"] if len(rules[row["label"]]) == 1 else f"{row['label']}, {_activations(row)}"
        for row in rows
    ]


def _activations(row: Mapping[str, Any]) -> str:
    if row["act_bits"] == FLOAT_BITS:
        return "weights only"
    return "all" if row["act_bits"] == row["weight_bits"] else f"acts {row['act_bits']:g}"


def positions(rows: Sequence[Record]) -> dict[float, int]:
    """Where each width stands, from wide to narrow as in the tables, at equal distances."""
    widths = sorted({row["weight_bits"] for row in rows}, reverse=True)
    return {width: place for place, width in enumerate(widths)}


def drawn(
    axes: Axes, line: Sequence[Record], places: Mapping[float, int], style: Mapping[str, Any], metric: str
) -> list[float]:
    """Draw a line with the intervals of its points; gives what the axis has to hold. A width whose results are all
    missing is left out, and the line broken there."""
    line = sorted(line, key=lambda row: places[row["weight_bits"]])
    place = shown if metric == "drop" else float
    xs, ys = [places[row["weight_bits"]] for row in line], [place(row[metric]) for row in line]
    axes.plot(xs, ys, zorder=3, **style)
    reach = np.hstack([bar(row, metric) for row in line])
    axes.errorbar(xs, ys, yerr=reach, fmt="none", ecolor=style["color"], elinewidth=0.9, alpha=0.6, zorder=2)
    return [value for row in line for value in ends(row, metric)]


def ticks(axes: Axes, places: Mapping[float, int], titles: Mapping[float, str] | None = None) -> None:
    """An x axis of widths."""
    axes.set_xticks(list(places.values()), [(titles or {}).get(width, f"{width:g}") for width in places])
    axes.set_xlabel("bits of a weight")
    axes.grid(axis="x", visible=False)
