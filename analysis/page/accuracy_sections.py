"""Report sections of the accuracy: by bits, as a drop from float, and against size and time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.compare import pareto
from analysis.compare.configurations import FLOAT_BITS, JOURNALS, by_network, hole, point
from analysis.draw import accuracy, best_lines, cost
from analysis.draw import drop as drops
from analysis.draw.axes import LEAST
from analysis.draw.style import WIDE
from analysis.page.parts import Cell, Column, Part, Picture, Section, Table, notes_of
from analysis.read.budgets import METHOD
from analysis.report import wording
from analysis.report.results import Results

PHONE = 3.7
"""Inches of a figure for a phone."""


def by_bits(results: Results) -> Section:
    """Top-1 by width: the figure and the same as tables."""
    alt = (
        "The best methods by the drop from float over the bits of a weight, weights alone in a panel of their own; "
        "and for each source the top-1 that it published, its re-run and the corrected method. "
        "The table below holds the same numbers."
    )
    caption = (
        "Bars: 95 % intervals; where they overlap widely, the order may be chance. The axis of drops is logarithmic, "
        f"and {LEAST:g} points or less stand at its end. The best of many: at each width the method that loses least, "
        f"then the second, and so on; widths of {best_lines.EASY_BITS} bits or more come last. "
        "The only line of a method there is named by the method alone; the table names each with its settings."
    )
    if accuracy.shows_published(results.summary, results.comparison):
        caption += " Hollow: what the source published, of this data set and of the source's own network."

    def draw(width: float) -> Figure:
        return accuracy.figure(results.summary, results.comparison, width)

    # Of one method with widths by layer all lines would be alike; `width-front` shows them, by size.
    quantized = results.summary[results.summary["method"] != "float"]["method"]
    is_of_widths = results.source == JOURNALS and len(quantized) > 0 and (quantized == METHOD).all()
    parts: list[Part] = [] if is_of_widths else [_picture("accuracy", draw, alt, caption, results)]
    parts += [_matrix(results, group, "top1", title) for title, group in by_network(results.summary)]
    return Section("accuracy", "Accuracy by bits", parts)


def drop(results: Results) -> Section:
    """Drop from float: the figure and the same as tables."""
    alt = (
        "Drop of top-1 from float for every configuration, the smallest on top. "
        "The table below holds the same numbers."
    )
    caption = (
        "Each run against the float network it started from, in points of top-1, on a logarithmic axis; "
        f"{LEAST:g} points or less, and gains, stand at its end. Bars: 95 % intervals."
    )

    def draw(width: float) -> Figure:
        tables = results.marked, results.summary, results.comparison
        return drops.figure(*tables, width, by_drop=results.order != "given")

    parts: list[Part] = [_picture("drop", draw, alt, caption, results)]
    quantized = results.summary[results.summary["method"] != "float"]
    parts += [_matrix(results, group, "drop", title) for title, group in by_network(quantized)]
    return Section("drop", "Drop from float", parts)


def _picture(name: str, draw: Callable[[float], Figure], alt: str, caption: str, results: Results) -> Picture:
    """A figure as on a page, as on a phone, and as wide as its files are to be."""
    filed = None if results.width is None else draw(results.width)
    return Picture(name, draw(WIDE), alt, caption, draw(PHONE), filed)


def _matrix(results: Results, group: pd.DataFrame, metric: str, title: str) -> Table:
    """A row for each label and kind of activations, a column for each width of weights, a cell a configuration."""
    widths = sorted(set(group["weight_bits"]), reverse=True)
    lines: dict[tuple[str, str], dict[int, Cell]] = {}
    for row in group.to_dict("records"):
        cells = lines.setdefault((row["label"], _activations(row)), {})
        cells[row["weight_bits"]] = _cell(results, row, metric)
    rows = [
        [Cell(label), Cell(acts, tone="quiet"), *(cells.get(width, Cell("")) for width in widths)]
        for (label, acts), cells in lines.items()
    ]
    columns = [Column("method"), Column("activations")]
    columns += [Column(wording.bits(width), True) for width in widths]
    caption = (
        f"{'Top-1 (%)' if metric == 'top1' else 'Drop from float (points)'} by bits of a weight, {title}: "
        "mean ± sample standard deviation over n seeds, and its 95 % interval"
    )
    # The figure shows each drop, and the table of top-1 stands above.
    folded = metric == "drop"
    return Table(caption, columns, rows, notes_of(rows, results.differences.words), cards=True, folded=folded)


def _cell(results: Results, row: dict[str, Any], metric: str) -> Cell:
    if not row["n"]:
        return hole_cell(row)
    if math.isnan(row[metric]):
        return Cell("no float run", wording.spread(row, metric), tone="wait")
    return Cell(wording.number(row[metric]), wording.spread(row, metric), results.marks(row))


def hole_cell(row: dict[str, Any]) -> Cell:
    """A configuration without a finished run: why, and of how many runs."""
    word = hole(row)
    return Cell(word, f"n 0 of {row['expected']}", tone="hole" if word == "failed" else "wait")


def _activations(row: dict[str, Any]) -> str:
    if row["act_bits"] == FLOAT_BITS:
        return "float"
    return "as weights" if row["act_bits"] == row["weight_bits"] else f"{row['act_bits']:g} bits"


def against_cost(results: Results) -> Section:
    """Accuracy against model size, and against latency where it was measured."""
    alt = "Drop from float against {}, each configuration a point. A dashed line joins those that nothing {} equals. "
    alt += "The table below lists the front."
    caption = (
        "Against size as stored. With a number: the front, which no other configuration that does what its method's "
        "name says beats in both; the others are pale. Hollow: a re-run of a source, with its defect."
    )
    parts: list[Part] = [
        _costs(
            "size",
            results.summary,
            pareto.SIZE,
            alt.format("the size of the model", "smaller"),
            caption,
            results,
        )
    ]
    for title, group in by_network(results.summary):
        parts.append(_front(results, group, pareto.SIZE, "MB", f"The front of accuracy and size, {title}"))
    if len(results.latency):
        caption = (
            "Against the latency of the exported networks, integers everywhere, as `suite latency` measured it; top-1 "
            "and drop are those of that runtime, on the images it answered. Few networks are drawn as bars."
        )
        alt = alt.format("the time an image takes", "faster")
        parts.append(_costs("latency", results.latency, pareto.LATENCY, alt, caption, results))
        for (model, dataset, panel), group in results.latency.groupby(
            ["model", "dataset", "panel"], sort=False
        ):
            name = f"The front of accuracy and latency, {model} on {dataset}, {panel}"
            parts.append(_front(results, group, pareto.LATENCY, "ms an image", name))
    return Section("cost", "Accuracy against cost", parts)


def _costs(name: str, points: pd.DataFrame, what: str, alt: str, caption: str, results: Results) -> Picture:
    filed = None if results.width is None else cost.figure(points, what, results.width)
    return Picture(name, cost.figure(points, what), alt, caption, filed=filed)


def _front(results: Results, points: pd.DataFrame, what: str, unit: str, caption: str) -> Table:
    rows = [
        [
            Cell(point(row)),
            Cell(f"{row[what]:.3g}"),
            Cell(
                wording.number(row["top1"]), wording.spread({"expected": row["n"]} | row), results.marks(row)
            ),
        ]
        for row in pareto.sound_front(points, what).to_dict("records")
    ]
    columns = [Column("configuration"), Column(unit, True), Column("top-1 %", True)]
    return Table(caption, columns, rows, notes_of(rows, results.differences.words))
