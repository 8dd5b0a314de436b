"""The report section of runs with a width for each layer: what layers cost, and what chosen widths gain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.compare import widths as compared
from analysis.compare.configurations import JOURNALS, by_network
from analysis.draw import widths
from analysis.page.parts import Cell, Column, Lines, Part, Picture, Section, Table
from analysis.read.width_records import LayerWidth, WidthRecord
from analysis.report import wording
from analysis.report.results import Results

COLUMNS = (
    Column("widths"),
    *(Column(title, True) for title in ("mean bits of a weight", "of a layer", "BOPs, billions", "size, MB")),
    *(
        Column(title, True)
        for title in ("top-1 %", "uniform, same size", "gain", "random, same budget", "beaten")
    ),
)


def section(results: Results) -> Section | None:
    """The figures and the table; None where the sweep has no such run."""
    found = compared.load(results.runs, results.marked) if results.source == JOURNALS else None
    if found is None:
        return None
    points, records = found.points, found.records
    parts: list[Part] = (
        [Lines([f"Left out: {problem}" for problem in found.problems])] if found.problems else []
    )
    if widths.scored(points, records):
        alt = "Bars of the score of each layer at several widths, weights and inputs apart."
        caption = (
            "The score by which widths were chosen, measured on training images: none above that of fewer bits, and "
            "at the bottom of the axis where it is zero. Layers without bars have declared widths."
        )
        parts.append(Picture("layer-costs", widths.layer_costs(points, records), alt, caption))
    alt = (
        "Top-1 against size and bit operations: uniform widths on a line, chosen and random widths around it."
    )
    caption = (
        "Each point is a run. Bit operations: weight bits times input bits, summed over all multiplications."
    )
    parts.append(Picture("width-front", widths.front(points), alt, caption))
    if len(compared.chosen(points)):
        alt = "Bits of each layer's weight and input along the network, a row for each choice."
        caption = "32 is float. Layers that take one tensor, or are added, have the same widths."
        parts.append(Picture("chosen-widths", widths.along(points, records), alt, caption))
        parts += [
            _by_layer(title, group, records) for title, group in by_network(widths.first_of_each(points))
        ]
    beside = compared.beside(points)
    if sentences := compared.won(beside):
        parts.append(Lines(sentences))
    rows = [_uniform(row) for row in points[points["by"] == compared.UNIFORM].to_dict("records")]
    rows += [_chosen(row) for row in beside]
    parts.append(
        Table("Widths by layer, and uniform and random ones within the same budget", COLUMNS, rows, {})
    )
    return Section("widths", "A width for every layer", parts)


def _by_layer(title: str, rows: pd.DataFrame, records: Mapping[str, WidthRecord]) -> Table:
    """A row for each layer: the bits of its weight and of its input by each choice."""
    shown = rows.head(widths.MOST_ROWS).to_dict("records")
    chosen = [{layer.layer: layer for layer in records[row["key"]].layers} for row in shown]
    names = dict.fromkeys(name for layers in chosen for name in layers)
    cells = [
        [Cell(name), *(Cell(_bits(layers[name]) if name in layers else "") for layers in chosen)]
        for name in names
    ]
    columns = [Column("layer"), *(Column(row["name"], True) for row in shown)]
    return Table(f"Bits of each layer's weight and input, {title}", columns, cells, {})


def _bits(layer: LayerWidth) -> str:
    return f"{layer.weight_bits}, {layer.input_bits}"


def _uniform(row: dict[str, Any]) -> list[Cell]:
    return [*_cells(row), *[Cell("")] * 4]


def _chosen(row: dict[str, Any]) -> list[Cell]:
    gain = row["top1"] - row["uniform_top1"]
    beaten = "" if math.isnan(row["random_beaten"]) else f"{100 * row['random_beaten']:.0f} %"
    return [
        *_cells(row),
        Cell(wording.number(row["uniform_top1"]), row["uniform"]),
        Cell(wording.number(gain, "+.2f")),
        Cell(wording.number(row["random_top1"]), f"n {row['random_n']}" if row["random_n"] else ""),
        Cell(beaten),
    ]


def _cells(row: dict[str, Any]) -> list[Cell]:
    return [
        Cell(row["name"], f"seed {row['seed']}"),
        Cell(wording.number(row["mean_weight_bits"])),
        Cell(wording.number(row["mean_weight_bits_by_layer"])),
        Cell(wording.number(row["bops"] / 1e9, ".4g")),
        Cell(wording.number(row["size_mb"], ".4g")),
        Cell(wording.number(row["top1"])),
    ]
