"""Two figures of a sweep: accuracy by weight bits, and drop from float. DataFrame in, Figure out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.compare.configurations import FLOAT_BITS, by_network, hole
from analysis.draw.axes import drops, percents
from analysis.draw.style import BASELINE, LINES, QUIET, RC, style_of

Record = dict[str, Any]

# Part of the distance between two widths over which the methods of one width are spread.
SPREAD = 0.64
SHIFT = 0.11
ROW_INCHES = 0.235


def accuracy(configurations: pd.DataFrame, comparison: pd.DataFrame) -> Figure:
    """Top-1 by weight bits, a line a method and variant, mean ± sample standard deviation over seeds.

    The float accuracy is the horizontal line. Hollow markers are published values, only where model and
    dataset are the published ones. One panel for each model and dataset.
    """
    panels = _panels(configurations.assign(line=_lines(configurations)))
    styles = _line_styles([(row["method"], row["line"]) for _, rows in panels for row in rows])
    with matplotlib.rc_context(RC):
        height = max(4.6 * len(panels), 0.205 * (len(styles) + 3) + 0.8)
        figure = Figure(figsize=(7.2 + _inches(line for _, line in styles), height), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False)
        for axes, (title, rows) in zip(grid[:, 0], panels, strict=True):
            axes.set_title(title)
            _accuracy_panel(axes, rows, comparison, styles)
        hollow = comparison["same"].any() if len(comparison) else False
        spread = configurations["top1_sd"].notna().any()
        figure.legend(
            handles=_line_legend(styles, _empty(panels), hollow=bool(hollow), spread=bool(spread)),
            loc="outside right upper",
            handlelength=3.4,
        )
    return figure


def drop(marked: pd.DataFrame, configurations: pd.DataFrame, comparison: pd.DataFrame) -> Figure:
    """Drop from float of every configuration, the smallest on top: each seed, their mean ± sd, what was published.

    A configuration with no run done keeps its row, at the bottom, with the reason.
    """
    panels = _panels(configurations[configurations["method"] != "float"])
    with matplotlib.rc_context(RC):
        counts = [len(rows) for _, rows in panels] or [1]
        height = sum(counts) * ROW_INCHES + 1.1 * len(counts) + 0.5
        width = 6.4 + _inches(_row_label(row) for _, rows in panels for row in rows)
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(counts), 1, squeeze=False, gridspec_kw={"height_ratios": counts})
        for axes, (title, rows) in zip(grid[:, 0], panels, strict=False):
            axes.set_title(title)
            _drop_panel(axes, rows, marked, comparison)
        figure.legend(handles=_drop_legend(), loc="outside lower center", ncols=3)
    return figure


def _inches(labels: Iterable[str]) -> float:
    """Room for the longest of `labels`, so that it takes nothing from the axes beside it."""
    return 0.08 * max(map(len, labels), default=0) + 0.4


def _panels(configurations: pd.DataFrame) -> list[tuple[str, list[Record]]]:
    return [(title, group.to_dict("records")) for title, group in by_network(configurations)]


def _lines(configurations: pd.DataFrame) -> list[str]:
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


def _activations(row: Record) -> str:
    if row["act_bits"] == FLOAT_BITS:
        return "weights only"
    return "all" if row["act_bits"] == row["weight_bits"] else f"acts {row['act_bits']}"


def _line_styles(lines: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Record]:
    """Colour and marker by method; the variants of one method differ in how their line is drawn."""
    styles: dict[tuple[str, str], Record] = {}
    for method, line in dict.fromkeys(lines):
        if method == "float":
            continue
        variant = sum(other == method for other, _ in styles)
        styles[method, line] = {
            "color": style_of(method).colour,
            "marker": style_of(method).marker,
            "markersize": style_of(method).size,
            "linestyle": LINES[variant % len(LINES)],
        }
    return styles


def _accuracy_panel(
    axes: Axes, rows: list[Record], comparison: pd.DataFrame, styles: dict[tuple[str, str], Record]
) -> None:
    quantized = [row for row in rows if row["method"] != "float"]
    floats = [row for row in rows if row["method"] == "float"]
    widths = sorted({row["weight_bits"] for row in quantized} - {FLOAT_BITS})
    positions = {bits: index for index, bits in enumerate([*widths, FLOAT_BITS])}
    here = [key for key in styles if any((row["method"], row["line"]) == key for row in quantized)]
    shown: list[float] = []
    for row in floats:
        shown += _baseline(axes, row, positions[FLOAT_BITS], comparison)
    for order, key in enumerate(here):
        shift = min(SPREAD / len(here), SHIFT) * (order + 0.5 - len(here) / 2)
        line = [row for row in quantized if (row["method"], row["line"]) == key]
        line.sort(key=lambda row: int(row["weight_bits"]))
        shown += _line(
            axes, line, [positions[row["weight_bits"]] + shift for row in line], styles[key], comparison
        )
    axes.set_xlabel("bits of a weight")
    axes.set_xticks(list(positions.values()), [*map(str, widths), "float"])
    axes.set_xlim(-0.5, len(positions) - 0.5)
    axes.grid(axis="x", visible=False)
    for left in range(len(positions) - 1):
        axes.axvline(left + 0.5, color=RC["grid.color"], linewidth=0.6, zorder=0)
    percents(axes, shown)


def _baseline(axes: Axes, row: Record, x: float, comparison: pd.DataFrame) -> list[float]:
    style = style_of("float")
    axes.axhline(row["top1"], color=style.colour, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.errorbar(
        [x],
        [row["top1"]],
        yerr=_spread([row]),
        color=style.colour,
        marker=style.marker,
        capsize=2,
        zorder=3,
    )
    published = [float(number["published"]) for number in _beside(row, comparison, same=True)]
    _hollow(axes, [x + 0.12] * len(published), published, style.marker, style.colour)
    return [row["top1"], *_ends(row), *published]


def _line(
    axes: Axes, line: list[Record], xs: list[float], style: Record, comparison: pd.DataFrame
) -> list[float]:
    means = [row["top1"] for row in line]
    # The line is only a guide from width to width: fainter than the results it joins, and broken at a hole.
    axes.plot(
        xs, means, color=style["color"], linestyle=style["linestyle"], linewidth=1.1, alpha=0.55, zorder=2
    )
    axes.errorbar(
        xs, means, yerr=_spread(line), capsize=2, elinewidth=1, zorder=3, **style | {"linestyle": "none"}
    )
    shown = [end for row in line for end in _ends(row)]
    for x, row in zip(xs, line, strict=True):
        published = [float(number["published"]) for number in _beside(row, comparison, same=True)]
        _hollow(axes, [x] * len(published), published, style["marker"], style["color"])
        shown += published
    return shown


def _hollow(axes: Axes, xs: Sequence[float], ys: Sequence[float], marker: str, colour: str) -> None:
    axes.plot(
        xs, ys, linestyle="none", marker=marker, markersize=8, markerfacecolor="none", markeredgecolor=colour,
        markeredgewidth=1.4, zorder=4,
    )  # fmt: skip


def _drop_panel(axes: Axes, rows: list[Record], marked: pd.DataFrame, comparison: pd.DataFrame) -> None:
    rows = sorted(rows, key=_drop_order)
    shown: list[float] = []
    for y, row in enumerate(rows):
        style = style_of(row["method"])
        seeds = marked[(marked["configuration"] == row["configuration"]) & marked["drop"].notna()]["drop"]
        published = [
            float(number["published_drop"])
            for number in _beside(row, comparison)
            if not math.isnan(number["published_drop"])
        ]
        axes.plot(
            seeds, [y] * len(seeds), linestyle="none", marker="o", markersize=4, markeredgewidth=0,
            color=style.colour, alpha=0.45, zorder=2,
        )  # fmt: skip
        spread = _spread([row], "drop")
        axes.errorbar(
            [row["drop"]], [y], xerr=spread, color=style.colour, marker=style.marker, markersize=style.size,
            capsize=3, zorder=3,
        )  # fmt: skip
        _hollow(axes, published, [y] * len(published), "D", style.colour)
        shown += [*seeds, *_ends(row, "drop"), *published]
    axes.axvline(0, color=BASELINE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_yticks(range(len(rows)), [_row_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(BASELINE if row["n"] else QUIET)
    drops(axes, shown)


def _drop_order(row: Record) -> tuple[bool, float, str]:
    # NaN compares with nothing: what has no drop goes to the bottom, by name.
    unknown = math.isnan(row["drop"])
    return unknown, 0.0 if unknown else row["drop"], _row_label(row)


def _row_label(row: Record) -> str:
    acts = "" if row["act_bits"] == FLOAT_BITS else f"a{row['act_bits']}"
    name = f"{row['label']}  w{row['weight_bits']}{acts}"
    return name if row["n"] else f"{name} ({hole(row)})"


def _beside(row: Record, comparison: pd.DataFrame, same: bool = False) -> Iterator[Record]:
    """The published top-1 values of a configuration; `same`: only of the same model and data."""
    for number in comparison.to_dict("records"):
        found = number["configuration"] == row["configuration"] and number["metric"] == "top1"
        if found and (number["same"] or not same):
            yield number


def _spread(rows: Sequence[Record], metric: str = "top1") -> list[float]:
    return [0.0 if math.isnan(row[f"{metric}_sd"]) else row[f"{metric}_sd"] for row in rows]


def _ends(row: Record, metric: str = "top1") -> list[float]:
    (spread,) = _spread([row], metric)
    return [row[metric] - spread, row[metric] + spread]


def _empty(panels: Sequence[tuple[str, list[Record]]]) -> set[str]:
    """The lines without one result."""
    rows = [row for _, rows in panels for row in rows]
    return {row["line"] for row in rows} - {row["line"] for row in rows if row["n"]}


def _line_legend(
    styles: dict[tuple[str, str], Record], empty: set[str], *, hollow: bool, spread: bool
) -> list[Line2D]:
    handles = [
        Line2D([], [], color=BASELINE, marker=style_of("float").marker, linestyle=(0, (4, 3)), label="float"),
        *(
            Line2D([], [], label=f"{line} (no result)" if line in empty else line, **style)
            for (_, line), style in styles.items()
        ),
    ]
    if hollow:
        handles.append(_proxy("hollow: published", marker="o", markersize=8, markerfacecolor="none"))
    if spread:
        handles.append(_proxy("bars: ± sd over seeds", marker="|", markersize=9))
    return handles


def _drop_legend() -> list[Line2D]:
    return [
        _proxy("one seed", marker="o", markersize=4, alpha=0.45),
        _proxy("mean ± sd, marker by method", marker="s"),
        _proxy("published drop (own model and data)", marker="D", markersize=8, markerfacecolor="none"),
    ]


def _proxy(label: str, **style: Any) -> Line2D:
    return Line2D([], [], linestyle="none", color=QUIET, label=label, **style)
