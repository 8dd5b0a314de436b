"""The report section of runs with a width for each layer: what layers cost, and what chosen widths gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.compare import layer_widths
from analysis.compare import widths as compared
from analysis.compare.configurations import JOURNALS
from analysis.compare.significance import LEVEL
from analysis.compare.widths import Widths
from analysis.draw import layer_costs, width_gains, widths
from analysis.page.parts import Cell, Column, Lines, Part, Picture, Section, Table
from analysis.read.budgets import RANDOM
from analysis.read.width_records import LayerWidth, WidthRecord
from analysis.report import wording
from analysis.report.results import Results
from analysis.report.tables import grid
from suite.record.words import counted

COLUMNS = (
    ("widths", False), ("n", True), ("bits of a weight", True), ("of a layer", True), ("BOPs, billions", True),
    ("MB", True), ("top-1 %", True), ("uniform, same size", False), ("its MB", True), ("its top-1 %", True),
    ("gain", True), ("95 %", True), ("p", True), ("random, same budget", True), ("best", True), ("beaten", True),
)  # fmt: skip


def section(results: Results) -> Section | None:
    """The figures and the tables, which are also files; None where the sweep has no such run."""
    found = compared.load(results.runs, results.marked) if results.source == JOURNALS else None
    if found is None:
        return None
    points, table = found.points, compared.compared(results.runs, found.points)
    parts: list[Part] = (
        [Lines([f"Left out: {problem}" for problem in found.problems])] if found.problems else []
    )
    parts += _pictures(found, table)
    parts.append(Lines([*compared.won(table), *notes(table)]))
    for title, rows in compared.by_group(table):
        cells = [list(map(Cell, _cells(row))) for row in rows.to_dict("records")]
        caption = f"Widths by layer, and uniform and random ones within the same budget, {title}"
        parts.append(Table(caption, [Column(*column) for column in COLUMNS], cells, {}))
    parts += [
        Table(
            f"Bits of each layer's weight and input, {title}",
            [Column(*column) for column in columns],
            [list(map(Cell, row)) for row in rows],
            {},
        )
        for title, columns, rows in _by_layer(points, found.records)
    ]
    return Section("widths", "A width for every layer", parts, _files(found, table))


def _pictures(found: Widths, table: pd.DataFrame) -> list[Part]:
    points, records = found.points, found.records
    parts: list[Part] = []
    if scored := layer_widths.scored(points, records):
        alt = "Bars of the score of each layer at several widths, a row a score, weights and inputs apart."
        caption = (
            "The score by which widths were chosen, measured on training images: none above that of fewer bits. A "
            "circle at the bottom: the score is zero. Layers without bars have declared widths. Of the Hessian: black "
            "lines are one standard error of its trace; where a trace is below its standard error, bars are pale."
        )
        parts.append(Picture("layer-costs", layer_costs.of_scores(scored), alt, caption))
    alt = (
        "Drop against size and bit operations: uniform widths on a line, chosen and random widths around it."
    )
    caption = (
        "Lines: the mean of each budget. Dotted: uniform widths. Bit operations: weight bits times input bits, summed "
        "over all multiplications of an image."
    )
    parts.append(Picture("width-front", widths.front(points), alt, caption))
    gains = width_gains.figure(table)
    if gains is not None:
        alt = (
            "Gain of each score over uniform widths of the same budget, with its interval, a panel a budget."
        )
        caption = "Each panel has a scale of its own. The table below holds the same numbers, and p."
        parts.append(Picture("width-gains", gains, alt, caption))
    if len(compared.chosen(points)):
        alt = "Bits of each layer's weight and input along the network, a row for each choice."
        caption = "32 is float. Layers that take one tensor, or are added, have the same widths."
        parts.append(Picture("chosen-widths", widths.along(points, records), alt, caption))
    return parts


def _files(found: Widths, table: pd.DataFrame) -> dict[str, str]:
    """The tables, where widths were chosen."""
    if not len(compared.chosen(table)):
        return {}
    files = {
        "widths.md": markdown(found, table),
        "widths.csv": table.to_csv(index=False),
        "chosen-widths.csv": layer_widths.widths(found.points, found.records).to_csv(index=False),
    }
    costs = layer_widths.costs(found.points, found.records)
    return files | ({"layer-costs.csv": costs.to_csv(index=False)} if len(costs) else {})


def markdown(found: Widths, table: pd.DataFrame) -> str:
    """The tables in Markdown."""
    parts = []
    for title, rows in compared.by_group(table):
        cells = [_cells(row) for row in rows.to_dict("records")]
        parts += [f"**{title}**", grid(cells, COLUMNS)]
    lines = [*compared.won(table), *notes(table), *(f"Left out: {problem}" for problem in found.problems)]
    parts.append("\n".join(f"- {line}" for line in lines))
    for title, columns, layers in _by_layer(found.points, found.records):
        parts += [f"**{title}: bits of each layer's weight, input**", grid(layers, columns)]
    return "\n\n".join(parts) + "\n"


def notes(table: pd.DataFrame) -> list[str]:
    """How to read the table, a sentence or two each."""
    tested = counted(int(table["p"].notna().sum()), "comparison")
    methods = wording.chosen_on([str(of).split()[0] for of in table["of"]]).strip()
    return [
        "Bits of a weight: the mean over all parameters; of a layer: over all layers. BOPs: weight bits times input "
        "bits, summed over all multiplications of an image. MB: the model as stored. Of several runs, n, all numbers "
        "are means.",
        "Uniform, same size: the same method with one width for all layers whose width is free, of the same budget. A "
        "budget between two of them has the point of its size on the straight line of top-1 between both, which is "
        "not tested; a straight line in width-front.png, whose axis is logarithmic, lies higher.",
        "Gain: points of top-1 above uniform, with its 95 % interval, paired image by image over the runs of the same "
        f"seeds; p: McNemar's exact test, corrected for the {tested} (Holm), significant below {LEVEL}. The "
        "intervals are not corrected; n = 1 says nothing of other calibration images.",
        "Random, same budget: the mean of widths that were drawn, and the best of them; beaten: the part of them with "
        "a lower top-1.",
        *([methods] if methods else []),
    ]


def _by_layer(
    points: pd.DataFrame, records: Mapping[str, WidthRecord]
) -> list[tuple[str, list[tuple[str, bool]], list[list[str]]]]:
    """Of each network and method a title, columns, and a row for each layer: the bits of its weight and of its input
    by each choice."""
    found = []
    for title, group in compared.by_group(compared.first_of_each(points)):
        shown = group.head(widths.MOST_ROWS).to_dict("records")
        layers = [{layer.layer: layer for layer in records[row["key"]].layers} for row in shown]
        names = dict.fromkeys(name for choice in layers for name in choice)
        rows = [
            [name, *(_bits(choice[name]) if name in choice else "" for choice in layers)] for name in names
        ]
        columns = [("layer", False), *((str(row["name"]), True) for row in shown)]
        found.append((title, columns, rows))
    return found


def _bits(layer: LayerWidth) -> str:
    return f"{layer.weight_bits}, {layer.input_bits}"


def _cells(row: Mapping[Any, Any]) -> Sequence[str]:
    """A row of the table in words, a text for each of COLUMNS."""
    number = wording.number
    drawn = row["by"] == RANDOM
    beaten = row["random_beaten"]
    return [
        row["name"],
        f"{row['n']} draw{'s' * (row['n'] > 1)}" if drawn else str(row["n"]),
        number(row["mean_weight_bits"]),
        number(row["mean_weight_bits_by_layer"]),
        number(row["bops"] / 1e9, ".4g"),
        number(row["size_mb"], ".4g"),
        number(row["top1"]),
        row["uniform"],
        number(row["uniform_size_mb"], ".4g"),
        number(row["uniform_top1"]),
        number(row["gain"], "+.2f"),
        wording.interval(row),
        wording.chance(row["p_holm"]),
        f"{number(row['random_top1'])} ({row['random_n']})" if row["random_n"] > 0 else "",
        number(row["random_best"]),
        "" if math.isnan(beaten) else f"{100 * beaten:.0f} %",
    ]
