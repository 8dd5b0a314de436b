"""Each method against the best of its widths: as Markdown and as a section of the page."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.compare.configurations import FLOAT_BITS, point, widths
from analysis.compare.significance import LEVEL
from analysis.compare.versus_best import BEST, BETTER, CLASS, INCONCLUSIVE, NETWORK, WORSE
from analysis.page.parts import Cell, Column, Lines, Part, Section, Table, notes_of
from analysis.report import wording
from analysis.report.results import Results
from analysis.report.tables import grid
from suite.record.words import counted

NAMED = 5
MOST = 25
"""Rows of a class that the page shows."""
OVERVIEW = (
    ("widths", False),
    ("best (top-1 %)", False),
    ("not significantly different (points)", False),
    ("worse", True),
)
COLUMNS = (
    ("configuration", False), ("n", True), ("top-1 %", True), ("to the best", True), ("95 %", True), ("p", True),
    ("verdict", False),
)  # fmt: skip
TONES = {BEST: "good", INCONCLUSIVE: ""}


def section(results: Results) -> Section | None:
    """Each configuration against the best of its widths; None where no two share any."""
    if not len(results.pairs):
        return None
    parts: list[Part] = [Lines(notes(results.pairs))]
    overview, columns = ([Column(*column) for column in listed] for listed in (OVERVIEW, COLUMNS))
    for title, group in _networks(results.pairs):
        short = [list(map(Cell, line)) for line in _overview(group)]
        parts.append(Table(f"The best by widths, {title}", overview, short, {}, cards=True))
        rows: list[list[Cell]] = []
        for of_widths, of_class in _classes(group):
            left_out = f": the nearest {MOST} of {len(of_class):,}, all in pairs.csv" * (len(of_class) > MOST)
            rows.append([Cell(of_widths + left_out)])
            rows += [_line(row, results) for row in of_class[:MOST].to_dict("records")]
        caption = f"Each configuration against the best of its widths, {title}"
        words = notes_of(rows, results.differences.words)
        parts.append(Table(caption, columns, rows, words, cards=True, folded=True))
    files = {"pairs.csv": results.pairs.to_csv(index=False), "pairs.md": markdown(results)}
    return Section("best", "Methods against the best of their widths", parts, files)


def _line(row: dict[str, Any], results: Results) -> list[Cell]:
    n, top1, *rest, verdict = _cells(row)
    tone = TONES.get(verdict, "quiet")
    return [
        Cell(row["label"]),
        Cell(n),
        Cell(top1, marks=results.marks(row)),
        *map(Cell, rest),
        Cell(verdict, tone=tone),
    ]


def markdown(results: Results) -> str:
    """The same in Markdown, configurations marked whose runs were made differently."""
    words = results.differences.words
    parts = []
    for title, group in _networks(results.pairs):
        rows = []
        for row in group.to_dict("records"):
            marks = "".join(f" [{mark}]" for mark in results.marks(row))
            rows.append([point(row) + marks, *_cells(row)])
        parts += [f"**{title}**", grid(_overview(group), OVERVIEW), grid(rows, COLUMNS)]
    lines = [*notes(results.pairs), *(f"[{mark}] {words[mark]}" for mark in words)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in lines)]) + "\n"


def notes(found: pd.DataFrame) -> list[str]:
    """How to read the table, a sentence or two each."""
    lines = [
        "Each configuration is compared with the best one of the same float networks and widths, in points of top-1, "
        "paired image by image over n pairs of runs of one network with the same seeds. p is exact: McNemar's test "
        "for n = 1; for more, all changes of one image count together.",
        "The best was chosen on these same images: part of a small lead is due to that choice, and what is not "
        "significantly different may be as good or better. p is about other test images, for these networks and "
        "seeds.",
        f"p is corrected for the {counted(int(found['p'].notna().sum()), 'comparison')} of the sweep (Holm); "
        f"worse means p below {LEVEL}. The intervals are not corrected.",
    ]
    if (found["by"] == "both").any():
        lines.append(
            "Another training of a network that was trained on would give another network: there p and interval also "
            "have to hold over trainings (Welch's t-test), which takes more than one on each side."
        )
    return lines


def _networks(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each setting of float networks, with its title."""
    return [
        (f"{model} on {dataset}" + (f", {start}" if start != "float" else ""), rows)
        for (model, dataset, start), rows in found.groupby(list(NETWORK), sort=False)
    ]


def _classes(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each class, the best first, with its widths."""
    named = []
    for _, rows in found.groupby(list(CLASS), sort=False):
        first = rows.iloc[0]
        acts = ", float activations" if first["act_bits"] == FLOAT_BITS else ""
        named.append((widths(first) + acts, rows))
    return named


def _overview(found: pd.DataFrame) -> list[list[str]]:
    """A line for each class in words, a text for each of OVERVIEW."""
    lines = []
    for title, rows in _classes(found):
        best, *others = rows.to_dict("records")
        near = [_near(row) for row in others if row["verdict"] in (INCONCLUSIVE, BETTER)]
        left_out = sum(math.isnan(row["p"]) for row in others)
        parts = near[:NAMED] + [f"{len(near) - NAMED} more"] * (len(near) > NAMED)
        parts += [f"not compared: {left_out}"] * (left_out > 0)
        worse = sum(row["verdict"] == WORSE for row in others)
        named = f"{best['label']} ({wording.number(best['top1'])})"
        lines.append([title, named, "; ".join(parts), str(worse or "")])
    return lines


def _near(row: dict[str, Any]) -> str:
    better = ", better where both ran" if row["verdict"] == BETTER else ""
    return f"{row['label']} ({wording.number(row['difference'], '+.2f')}{better})"


def _cells(row: dict[str, Any]) -> list[str]:
    """A row of the table in words, a text for each of COLUMNS but the first."""
    return [
        str(row["n"]),
        wording.number(row["top1"]),
        "" if row["verdict"] == BEST else wording.number(row["difference"], "+.2f"),
        wording.interval(row),
        wording.chance(row["p_holm"]),
        row["verdict"],
    ]
