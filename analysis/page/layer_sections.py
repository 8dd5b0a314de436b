"""Report sections of the layers: noise, ranges, and confused classes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.compare.configurations import by_network
from analysis.compare.layers import KEPT, MOST, NEAREST, Confusion
from analysis.draw import confusion, layers
from analysis.page.parts import Cell, Column, Lines, Part, Picture, Section, Table
from analysis.read.layer_records import TENSORS
from analysis.report import wording
from analysis.report.results import Results

SWAPS = 20
"""Pairs of classes that are listed where there are too many for a table of all."""


def noise(results: Results) -> Section | None:
    """SQNR by layer: the figure and the same as tables."""
    shown, every = results.evidence.shown, results.evidence.layers
    if not every["sqnr_db"].notna().any():
        return None
    alt = (
        "Heat map of the signal-to-quantization-noise ratio: a row for each configuration, a column for each layer, "
        "weights above and inputs below. The tables below hold the same numbers."
    )
    caption = (
        f"Of each configuration the run with the lowest seed; at most {MOST} for each network: every method at its "
        f"width nearest to {NEAREST} bits, then at the next one, as long as all fit. Empty cells and missing rows: "
        "nothing is rounded, or the values are not finite."
    )
    lines = Lines(
        [
            "SQNR, in decibels: the power of a layer's weights, or of its inputs on a few test images, divided by the "
            "power of their rounding error; each rounding is measured by itself. 6 dB correspond to one bit; at 0 dB "
            "the error is as strong as the signal."
        ]
    )
    figure = layers.heat_map(shown, every)
    parts: list[Part | None] = [lines, Picture("layers", figure, alt, caption)]
    for title, group in by_network(shown):
        parts += [_decibels(every, group, tensor, title) for tensor in TENSORS]
    return Section("layers", "Where the signal is lost", [part for part in parts if part is not None])


def _decibels(every: pd.DataFrame, group: pd.DataFrame, tensor: str, network: str) -> Table | None:
    mine = every[every["configuration"].isin(group["configuration"])]
    names = list(dict.fromkeys(mine["layer"]))
    values = layers.table(mine, tensor, "sqnr_db")
    rows: list[list[Cell]] = []
    for row in group.to_dict("records"):
        own = values.loc[row["configuration"]] if row["configuration"] in values.index else None
        if row["problem"]:
            rows.append([Cell(row["point"], row["problem"]), *[Cell("")] * len(values.columns)])
        elif own is not None and own.notna().any():
            rows.append([Cell(row["point"]), *(Cell(wording.number(own[name], ".1f")) for name in names)])
    columns = [Column("configuration"), *(Column(name, True) for name in names)]
    caption = f"SQNR (dB) of the {layers.TITLES[tensor]} of each layer, {network}"
    return Table(caption, columns, rows, {}, folded=True) if values.notna().to_numpy().any() else None


def ranges(results: Results) -> Section | None:
    """Histograms with the chosen ranges: the figure, and its numbers as a table."""
    shown, every = results.evidence.shown, results.evidence.layers
    if not len(layers.compared(shown, every)):
        return None
    alt = (
        "Histograms of the weights and inputs of three layers before rounding, a column for each of a few "
        "configurations, with the chosen range as vertical lines. The table below holds noise and ranges."
    )
    caption = (
        "Counts on a logarithmic axis, before rounding. Solid: the ends of the range; dashed: those of the narrowest "
        "channel, where each channel has its own. An end far beyond the values is given as a number alone. Layers: "
        "the first, the one of the lowest median SQNR and the last. Configurations: of each method the one nearest to "
        f"{NEAREST} bits, methods that round activations first, at most {layers.METHODS}."
    )
    columns = [Column(title) for title in ("layer", "tensor", "configuration")]
    columns += [Column(title, True) for title in ("SQNR (dB)", "values from", "to", "range from", "to")]
    parts: list[Part] = [Picture("ranges", layers.histograms(shown, every), alt, caption)]
    for title, group in by_network(shown):
        mine = every[every["configuration"].isin(group["configuration"])]
        names = dict(zip(group["configuration"], group["point"], strict=True))
        chosen = layers.compared(group, mine)["configuration"]
        wanted = mine[
            mine["configuration"].isin(chosen)
            & mine["layer"].isin(layers.selected(mine) if len(chosen) else [])
        ]
        wanted = wanted.sort_values(["layer", "tensor"], ascending=[True, False], kind="stable")
        rows = [
            [
                *map(Cell, (row["layer"], row["tensor"], names[row["configuration"]])),
                Cell(wording.number(row["sqnr_db"], ".1f")),
                *(Cell(wording.number(row[end], ".3g")) for end in ("smallest", "largest", "low", "high")),
            ]
            for row in wanted.to_dict("records")
        ]
        if rows:
            parts.append(Table(f"Values and chosen ranges, {title}", columns, rows, {}, folded=True))
    return Section("ranges", "Values and the ranges chosen for them", parts)


def classes(results: Results) -> Section | None:
    """The confusion of float and of the most damaged configuration: the figure and the same as tables."""
    confusions = results.evidence.confusions
    if not confusions:
        return None
    parts: list[Part] = [Lines([_chosen(one) for one in confusions])]
    if any(len(one.classes) <= confusion.LARGEST for one in confusions):
        alt = (
            "Confusion matrix of the float network in percent of each true class, a row each, and beside it by "
            "how much that of a damaged network differs. The tables below hold the test images behind them."
        )
        caption = "Numbers and colours: percent of the images of the true class. Empty: none, or no change."
        parts.append(Picture("confusion", confusion.figure(confusions), alt, caption))
    parts += [_matrix(one) if len(one.classes) <= confusion.LARGEST else _swaps(one) for one in confusions]
    return Section("classes", "Which class is taken for which", parts)


def _chosen(one: Confusion) -> str:
    if one.damaged is None:
        return f"{one.network}: the float network alone; none that keeps {100 * KEPT:.0f} % of its top-1 recorded it."
    return (
        f"{one.network}: beside the float network is {one.name} (top-1 {one.top1:.2f} %), the most damaged "
        f"configuration that has not collapsed, that is, which keeps at least {100 * KEPT:.0f} % of float's top-1."
    )


def _matrix(one: Confusion) -> Table:
    change = one.damaged - one.baseline if one.damaged is not None else np.zeros_like(one.baseline)
    rows = [
        [
            Cell(name),
            *(
                Cell(f"{n:,}", wording.number(float(by), "+.0f") if by else "")
                for n, by in zip(*line, strict=True)
            ),
        ]
        for name, *line in zip(one.classes, one.baseline.tolist(), change.tolist(), strict=True)
    ]
    columns = [Column("true class"), *(Column(name, True) for name in one.classes)]
    beside = f"; small: the change with {one.name}" if one.name else ""
    return Table(
        f"Test images by true class and the class they are taken for, {one.network}: float{beside}",
        columns,
        rows,
        {},
        folded=True,
    )


def _swaps(one: Confusion) -> Table:
    """The pairs of classes that are confused most, or more than in float most."""
    counts = (one.damaged - one.baseline if one.damaged is not None else one.baseline).copy()
    np.fill_diagonal(counts, 0)
    worst = np.argsort(-counts, axis=None, kind="stable")[:SWAPS]
    rows = [
        [
            Cell(one.classes[true]),
            Cell(one.classes[taken]),
            Cell(f"{one.baseline[true, taken]:,}"),
            Cell(f"{counts[true, taken]:+,}"),
        ]
        for true, taken in zip(*np.unravel_index(worst, counts.shape), strict=True)
        if counts[true, taken] > 0
    ]
    columns = [
        Column("true class"),
        Column("taken for"),
        Column("float, images", True),
        Column("more" if one.name else "images", True),
    ]
    return Table(
        f"The {SWAPS} commonest confusions{f' that {one.name} adds' if one.name else ''}, {one.network}",
        columns,
        rows,
        {},
    )
