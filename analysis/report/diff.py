"""The comparison of two sweeps in words, Markdown and on a terminal."""

from __future__ import annotations

import math
from collections import Counter

from analysis.compare.configurations import by_network, point
from analysis.compare.significance import LEVEL
from analysis.compare.sweeps import BAD, BETTER, ORDER, RETRAINED, Diff, Row
from analysis.report import wording
from analysis.report.tables import grid
from suite.record.words import counted

NAMED = 3
"""Configurations that the summary names."""
LEAST = (9, 8, 7, 10, 1, 2, 3)
"""The columns that a narrow terminal does without, the first first."""
COLOURS = dict.fromkeys(BAD, "red") | {BETTER: "green"}


COLUMNS = (
    ("configuration", False), ("n", True), ("A %", True), ("B %", True), ("B - A", True), ("95 %", True),
    ("p", True), ("by", False), ("speed", True), ("size", True), ("float network", False), ("verdict", False),
)  # fmt: skip


def summary(found: Diff) -> str:
    """What came out, in a line, with the first of those that are worse."""
    counts = Counter(found.table["verdict"])
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict])
    bad = found.table[found.table["verdict"].isin(BAD)].to_dict("records")
    named = [
        f"{point(row)} ({wording.number(row['difference'], '+.2f') or row['verdict']})" for row in bad[:NAMED]
    ]
    named += [f"{len(bad) - NAMED} more"] if len(bad) > NAMED else []
    first = f"Worse: {', '.join(named)}" if bad else "Not worse" if found.is_tested else "Cannot be tested"
    sweeps = f"{found.before.sweep} → {found.after.sweep}"
    return f"{first}. {sweeps}, {counted(len(found.table), 'configuration')}: {verdicts}."


def notes(found: Diff) -> list[str]:
    """How to read the table, a sentence or two each."""
    lines = [
        f"A: {found.before.sweep} in {found.before.runs}. B: {found.after.sweep} in {found.after.runs}.",
        "B - A: points of top-1. By images: paired over the test images of all n seeds, p exact (McNemar's test "
        "where n is 1); by seeds: Welch's t-test, which wants two on either side. p is corrected for the number of "
        f"rows (Holm); worse and better are below {LEVEL}. The intervals are of single rows, uncorrected.",
        "Speed and size are B / A: images a second, where all ran on the same device, and the model as stored.",
    ]
    other = int(((found.table["by"] == "both") | (found.table["verdict"] == RETRAINED)).sum())
    if other:
        lines.append(
            f"In {counted(other, 'row')} A and B are different trainings, of the network or of its float "
            "network: judged by both, with the larger p and the wider interval; not at all from one training a side."
        )
    if found.otherwise:
        lines.append(f"Trained otherwise, A → B: {'; '.join(found.otherwise)}.")
    return lines


def markdown(found: Diff) -> str:
    """Summary, tables and notes."""
    parts = [f"**{summary(found)}**"]
    parts += [f"{title}\n\n{grid(rows, COLUMNS)}" for title, rows in sections(found)]
    parts.append("\n".join(f"- {line}" for line in notes(found)))
    return "\n\n".join(parts) + "\n"


def sections(found: Diff) -> list[tuple[str, list[list[str]]]]:
    """The table as cells, one for each model and data set, with its title."""
    return [
        (title, [_cells(row) for row in rows.to_dict("records")]) for title, rows in by_network(found.table)
    ]


def _cells(row: Row) -> list[str]:
    number = wording.number
    counts = dict.fromkeys((row["n_a"], row["n_b"]))
    return [
        point(row),
        "/".join(map(str, counts)),
        number(row["top1_a"]),
        number(row["top1_b"]),
        number(row["difference"], "+.2f"),
        wording.interval(row),
        wording.chance(row["p_holm"]),
        row["by"],
        *("" if math.isnan(row[name]) else f"{row[name]:.2f}" for name in ("speed_ratio", "size_ratio")),
        row["float_stage"],
        row["verdict"],
    ]
