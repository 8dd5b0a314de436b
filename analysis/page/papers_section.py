"""Report section: what other methods lose at low widths, as papers state it, beside ours of the same convention."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.compare import papers
from analysis.page.parts import Cell, Column, Lines, Part, Section, Table
from analysis.report import wording
from analysis.report.results import Results

COLUMNS = (
    Column("paper"),
    Column("widths"),
    Column("first and last layer"),
    Column("top-1 %", True),
    Column("loses", True),
    Column("ours"),
    Column("we lose", True),
    Column("verdict"),
)
TONES = {papers.LESS: "good", papers.MORE: "bad", papers.ALIKE: "wait"}


def section(results: Results) -> Section | None:
    """A row for each paper's number that can be judged; the others, of other conventions, in a line."""
    table = papers.beside(results.summary)
    if not len(table):
        return None
    judged = table[table["verdict"] != papers.NOT_RUN]
    order = ["edges", "weight_bits", "act_bits", "loss"]
    judged = judged.sort_values(order, ascending=[True, False, False, True], kind="stable")
    records = judged.to_dict("records")
    caption = "Papers' losses from float, in points, and ours of the same network, widths and convention"
    rows = [_cells(row) for row in records]
    parts: list[Part] = [Lines([papers.DEFINITION]), Table(caption, COLUMNS, rows, {}, cards=True)]
    others = table[table["verdict"] == papers.NOT_RUN]
    if len(others):
        parts.append(Lines([f"Not judged, no run of that convention here: {_named(others)}."]))
    files = {"papers.csv": table.to_csv(index=False), "papers.md": markdown(records)}
    return Section("papers", "Beside the papers", parts, files)


def _cells(row: dict[str, Any]) -> list[Cell]:
    interval = f"{wording.number(row['drop_low'])} to {wording.number(row['drop_high'])}"
    return [
        Cell(row["paper"], row["note"]),
        Cell(_widths(row)),
        Cell(row["edges"]),
        Cell(wording.number(row["published"]), f"float {wording.number(row['published'] + row['loss'])}"),
        Cell(wording.number(row["loss"])),
        Cell(row["label"], f"n {row['n']}"),
        Cell(wording.number(row["drop"]), interval),
        Cell(row["verdict"], tone=TONES[row["verdict"]]),
    ]


def markdown(records: list[dict[str, Any]]) -> str:
    """The same table, for results/."""
    lines = [papers.DEFINITION, "", "| " + " | ".join(column.title for column in COLUMNS) + " |"]
    lines.append("| " + " | ".join("---:" if column.numeric else "---" for column in COLUMNS) + " |")
    for row in records:
        cells = [f"{cell.text} ({cell.small})" if cell.small else cell.text for cell in _cells(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _widths(row: dict[str, Any]) -> str:
    return f"W{row['weight_bits']}A{row['act_bits']}"


def _named(rows: pd.DataFrame) -> str:
    return "; ".join(dict.fromkeys(f"{row['paper']} ({row['source']})" for row in rows.to_dict("records")))
