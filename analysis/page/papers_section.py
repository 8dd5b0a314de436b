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
TONES = {papers.LESS: "good", papers.MORE: "bad", papers.ALIKE: "wait", papers.OTHER: ""}


def section(results: Results) -> Section | None:
    """A row for each paper's number beside which one of ours stands, those of another convention last, which are not
    judged; the others in a line."""
    table = papers.beside(results.summary)
    if not len(table):
        return None
    shown = table[table["verdict"] != papers.NOT_RUN].assign(other=table["verdict"] == papers.OTHER)
    order = ["other", "edges", "weight_bits", "act_bits", "loss"]
    shown = shown.sort_values(order, ascending=[True, True, False, False, True], kind="stable")
    records = shown.to_dict("records")
    caption = "Papers' losses from float, in points, and ours of the same network and widths"
    rows = [_cells(row) for row in records]
    parts: list[Part] = [Lines([papers.DEFINITION]), Table(caption, COLUMNS, rows, {}, cards=True)]
    others = table[table["verdict"] == papers.NOT_RUN]
    if len(others):
        parts.append(Lines([f"Not run here: {_named(others)}."]))
    files = {"papers.csv": table.to_csv(index=False), "papers.md": markdown(records)}
    return Section("papers", "Beside the papers", parts, files)


def _cells(row: dict[str, Any]) -> list[Cell]:
    interval = f"{wording.number(row['drop_low'])} to {wording.number(row['drop_high'])}"
    uncertain = f"±{wording.number(row['half'])}" if row["half"] else ""
    chosen = "; best epoch on the test images" if row["best"] else ""
    own = f"n {row['n']}"
    if row["verdict"] == papers.OTHER:
        own += f"; {row['own_edges']}, shortcuts {row['own_carried']}"
    return [
        Cell(row["paper"], row["note"] + chosen),
        Cell(_widths(row)),
        Cell(row["edges"], f"identity shortcuts {row['carried']}"),
        Cell(wording.number(row["published"]), f"float {wording.number(row['published'] + row['loss'])}"),
        Cell(wording.number(row["loss"]), uncertain),
        Cell(row["label"], own),
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
