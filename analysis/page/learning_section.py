"""The report section of quantization-aware trainings: what each is worth, and how its step sizes moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.compare.configurations import FLOAT_BITS, by_network, point
from analysis.draw import learned
from analysis.page.accuracy_sections import hole_cell
from analysis.page.parts import Cell, Column, Part, Picture, Section, Table, notes_of
from analysis.read.curves import Curve
from analysis.report import wording
from analysis.report.results import Results
from suite.record.words import counted

MOST = 6
"""Rows of the figure: more are in learned.csv alone."""

COLUMNS = (
    Column("method"),
    *(
        Column(title, True)
        for title in ("epochs", "calibration alone %", "top-1 %", "drop from float", "gain")
    ),
)


def section(results: Results) -> Section | None:
    """The table and the figure; None where nothing quantized was trained."""
    marked = results.marked
    trained = marked[marked["key"].isin(list(results.curves)) & (marked["method"] != "float")]
    if not len(trained):
        return None
    parts: list[Part] = []
    for title, group in by_network(results.summary):
        mine = group[group["configuration"].isin(set(trained["configuration"]))]
        if len(mine):
            parts.append(_table(results, mine, trained, title))
    files = {}
    shown = _first_runs(results, trained)
    if shown:
        alt = (
            "Step sizes and clips that learn, a line for each layer, relative to what they were before training: "
            "weights on the left, inputs on the right."
        )
        caption = (
            "Of each configuration the first run; the colour shows the place of the layer in the network. Where "
            "nothing was recorded before training, values are relative to the first epoch. learned.csv beside this "
            "page has all."
        )
        if len(shown) > MOST:
            caption += f" Shown are {MOST} of {counted(len(shown), 'configuration')}."
        some = dict(list(shown.items())[:MOST])
        order = [str(name).replace(".", "_") for name in results.evidence.layers["layer"].unique()]
        parts.append(Picture("learned", learned.figure(some, order), alt, caption))
        files["learned.csv"] = _csv(results, trained)
    return Section("learning", "Training with quantizers", parts, files)


def _table(results: Results, configurations: pd.DataFrame, trained: pd.DataFrame, title: str) -> Table:
    rows: list[list[Cell]] = []
    by_widths = configurations.sort_values(["weight_bits", "act_bits"], ascending=False, kind="stable")
    for (weight_bits, act_bits), group in by_widths.groupby(["weight_bits", "act_bits"], sort=False):
        acts = "float" if act_bits == FLOAT_BITS else f"{act_bits} bits"
        rows.append([Cell(f"weights {weight_bits} bits, activations {acts}")])
        best_first = group.sort_values("drop", kind="stable", na_position="last")
        for row in best_first.to_dict("records"):
            runs = trained[trained["configuration"] == row["configuration"]]
            rows.append(_row(results, row, runs))
    caption = (
        f"Quantization-aware trainings, {title}: mean ± sample standard deviation over n seeds, its 95 % interval. "
        "Calibration alone: top-1 before the first step of training; gain: what training adds to it"
    )
    return Table(caption, COLUMNS, rows, notes_of(rows, results.differences.words), cards=True)


def _row(results: Results, row: Mapping[str, Any], runs: pd.DataFrame) -> list[Cell]:
    epochs = max(len(results.curves[key].epochs) for key in runs["key"])
    head = [Cell(row["label"]), Cell(f"{epochs:,}")]
    if not row["n"]:
        return [*head, Cell(""), hole_cell(dict(row)), Cell(""), Cell("")]
    done = runs[runs["state"] == "done"]
    start, gains = done["start_top1"].mean(), (done["top1"] - done["start_top1"]).dropna()
    gain = gains.mean() if len(gains) else math.nan
    deviation = f"± {gains.std():.2f}" if len(gains) > 1 else ""
    return [
        *head,
        Cell(wording.number(start)),
        Cell(wording.number(row["top1"]), wording.spread(row), results.marks(row)),
        Cell(wording.number(row["drop"]), wording.spread(row, "drop")),
        Cell(
            wording.number(gain, "+.2f"),
            "worse than calibration alone" if gain < 0 else deviation,
            tone="bad" if gain < 0 else "",
        ),
    ]


def _first_runs(results: Results, trained: pd.DataFrame) -> dict[str, Curve]:
    """The curve of the first run of each configuration that learned something, by its title."""
    found: dict[str, Curve] = {}
    for row in trained.drop_duplicates("configuration").to_dict("records"):
        curve = results.curves[row["key"]]
        if learned.lines(curve):
            found.setdefault(point(row), curve)
    return found


def _csv(results: Results, trained: pd.DataFrame) -> str:
    rows: list[tuple[Any, ...]] = []
    for run in trained.to_dict("records"):
        curve = results.curves[run["key"]]
        who = run["key"], run["label"], run["weight_bits"], run["act_bits"]
        for line in learned.lines(curve):
            what = line.layer, line.side, line.parameter
            rows += [(*who, *what, *value) for value in zip([0, *curve.epochs], line.values, strict=True)]
    names = ["key", "label", "weight_bits", "act_bits", "layer", "of", "parameter", "epoch", "value"]
    return str(pd.DataFrame(rows, columns=names).to_csv(index=False))
