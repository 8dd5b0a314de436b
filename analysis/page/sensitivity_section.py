"""The report section of what rounding each layer costs, as it was measured, and which score says so before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.compare.configurations import JOURNALS, point
from analysis.draw import layer_costs
from analysis.draw.layer_costs import LayerBars
from analysis.draw.layers import TITLES
from analysis.errors import AnalysisError
from analysis.page.parts import Cell, Column, Lines, Part, Picture, Section, Table
from analysis.read.layer_records import TENSORS
from analysis.read.sensitivity_records import SCORES, TRUTHS, SensitivityRecord, read_sensitivity
from analysis.report import wording
from analysis.report.results import Results
from analysis.report.tables import grid
from suite.record.words import counted

MOST = 6
"""Runs that are shown."""
RANKS = ("tensor", "bits", "score", "layers", "rho with the loss alone", "95 %", "with all but one", "95 %")
NAMES = {"hessian": "Hessian"}


@dataclass(frozen=True)
class Measured:
    """A run and what was measured of its layers."""

    title: str
    record: SensitivityRecord

    def rise(self, tensor: str) -> pd.DataFrame:
        """By layer, in the network's order, and bits: by how much the loss rises with that tensor alone rounded, or
        where the loss was not measured, the noise of the layer's output."""
        costs = self.record.costs[self.record.costs["tensor"] == tensor]
        order = list(dict.fromkeys(costs["layer"]))
        value = costs["loss_alone"] - self.record.loss if self.has_truth else costs["noise"]
        table = costs.assign(value=value).pivot_table(
            index="layer", columns="bits", values="value", dropna=False
        )
        return table.reindex(order)

    @property
    def has_truth(self) -> bool:
        """Whether the loss was measured."""
        return bool(self.record.costs["loss_alone"].notna().any())

    @property
    def what(self) -> str:
        """Of what its bars are."""
        return "rise of the loss, nats" if self.has_truth else "noise to signal"


def section(results: Results) -> Section | None:
    """A figure and tables for each run that was measured; None where none was."""
    found, problems = _measured(results)
    if not found:
        return None
    parts: list[Part] = [Lines([f"Left out: {problem}" for problem in problems])] if problems else []
    rows = [layer_costs.Row(one.title, _bars(one), one.what) for one in found]
    alt = "Bars of what rounding each layer alone costs at several widths, weights and inputs apart."
    caption = (
        "Measured on training images, each tensor rounded alone and all else float. A circle on the floor of the "
        "axis: the loss does not rise."
    )
    parts.append(Picture("sensitivity", layer_costs.bars(rows), alt, caption))
    for one in found:
        if len(one.record.ranks):
            parts.append(_ranks(one))
        parts += [_costs(one, tensor) for tensor in TENSORS if len(one.rise(tensor))]
    return Section("sensitivity", "What each layer costs", parts, _files(found, parts))


def _files(found: Sequence[Measured], parts: Sequence[Part]) -> dict[str, str]:
    """The tables in Markdown, and every score and loss as CSV."""
    texts = []
    for part in parts:
        if isinstance(part, Table):
            columns = [(column.title, column.numeric) for column in part.columns]
            rows = [[f"{c.text} ({c.small})" if c.small else c.text for c in row] for row in part.rows]
            texts += [f"**{part.caption.replace('; small:', '; in brackets:')}**", grid(rows, columns)]
    costs = pd.concat([one.record.costs.assign(run=one.title) for one in found])
    return {"sensitivity.md": "\n\n".join(texts) + "\n", "sensitivity.csv": costs.to_csv(index=False)}


def _measured(results: Results) -> tuple[list[Measured], list[str]]:
    """Of the runs in plan order; and why others are left out."""
    found: list[Measured] = []
    problems = []
    done = results.done if results.source == JOURNALS else results.done[:0]
    for run in done.to_dict("records"):
        try:
            record = read_sensitivity(results.runs, run["key"])
        except AnalysisError as problem:
            problems.append(f"{run['key']}: {problem}")
            continue
        if record is not None and len(found) < MOST:
            method = "mse" if run["method"] == "float" else point(run)
            found.append(
                Measured(f"{run['model']} on {run['dataset']}, {method}, seed {run['seed']}", record)
            )
    return found, problems


def _bars(one: Measured) -> list[LayerBars]:
    by_layer: dict[str, dict[str, dict[int, float]]] = {}
    for tensor in TENSORS:
        table = one.rise(tensor)
        for layer, row in table.iterrows():
            known = {int(bits): float(row[bits]) for bits in table.columns if row[bits] == row[bits]}
            by_layer.setdefault(str(layer), {})[tensor] = known
    return [LayerBars(layer, scores, absent="not rounded") for layer, scores in by_layer.items()]


def _ranks(one: Measured) -> Table:
    """Spearman's rho of each score with both truths."""
    rows: list[list[Cell]] = []
    by_place = one.record.ranks.groupby(["tensor", "bits"], sort=False)
    for (tensor, bits), mine in by_place:
        for score in SCORES:
            of_score = mine[mine["score"] == score]
            if len(of_score):
                layers = wording.number(float(of_score["layers"].iloc[0]), ".0f")
                cells = [
                    Cell(TITLES[str(tensor)]),
                    Cell(str(bits)),
                    Cell(NAMES.get(score, score)),
                    Cell(layers),
                ]
                rows.append([*cells, *_rho(of_score)])
    columns = [Column(title, number not in (0, 2)) for number, title in enumerate(RANKS)]
    caption = (
        f"Which score ranks layers as the loss does: Spearman's rho over layers, {one.title}, "
        f"{counted(one.record.images, 'training image')}"
    )
    return Table(caption, columns, rows, {})


def _rho(of_score: pd.DataFrame) -> Sequence[Cell]:
    cells: list[Cell] = []
    for truth in TRUTHS:
        found = of_score[of_score["truth"] == truth]
        if not len(found):
            cells += [Cell(""), Cell("")]
            continue
        row = found.iloc[0]
        ends = " to ".join(wording.number(float(row[end])) for end in ("low", "high"))
        cells += [Cell(wording.number(float(row["rho"]))), Cell(ends)]
    return cells


def _costs(one: Measured, tensor: str) -> Table:
    """By layer and width the rise of the loss and, below it, of top-1; or the noise."""
    table = one.rise(tensor)
    of_tensor = one.record.costs[one.record.costs["tensor"] == tensor]
    top1 = {(row.layer, row.bits): row.top1_alone - one.record.top1 for row in of_tensor.itertuples()}
    rows = []
    for layer, row in table.iterrows():
        cells = [
            Cell(wording.number(float(row[bits]), ".3g"), wording.number(top1[layer, bits], "+.2f"))
            for bits in table.columns
        ]
        rows.append([Cell(str(layer)), *cells])
    columns = [Column("layer"), *(Column(f"{bits} bits", True) for bits in table.columns)]
    small = "; small: what that does to top-1, in points" if one.has_truth else ""
    caption = f"{one.what.capitalize()} with the {TITLES[tensor]} of one layer rounded{small}, {one.title}"
    return Table(caption, columns, rows, {})
