r"""The result table for a paper: LaTeX that needs `\usepackage{booktabs}` and nothing else."""

from __future__ import annotations

import re

import pandas as pd

from analysis.report import tables
from analysis.report.results import Results

# Which of `tables.COLUMNS` a page has room for, with the heading and the alignment of each.
SHOWN = {
    0: (r"method", "l"),
    2: (r"weights", "r"),
    3: (r"acts", "r"),
    4: (r"top-1 \% ($n$)", "r"),
    5: (r"95 \%", "r"),
    6: (r"drop", "r"),
    7: (r"95 \%", "r"),
    8: (r"MB", "r"),
    9: (r"published", "l"),
    10: (r"its top-1", "r"),
    12: (r"verdict", "l"),
}
TOP1 = 4
MARKED = re.compile(r" \[([a-z,]+)\]$")
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "\N{MINUS SIGN}": "$-$", "→": r"$\to$",
    # After the end of a row these two would be its arguments.
    "[": "{[}", "*": "{*}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
}  # fmt: skip


def table(results: Results) -> str:
    """A `table` for each model and data set; holes are named, marks raised and explained below it."""
    lines = [r"% Needs \usepackage{booktabs}."]
    notes = [rf"{_noted(line)}\par" for line in tables.notes(results)]
    headings, alignments = zip(*SHOWN.values(), strict=True)
    for section in tables.sections(tables.joined(results.summary, results.comparison)):
        rows = pd.DataFrame([[_cell(row[column], column) for column in SHOWN] for row in section.rows])
        # Escaped here: pandas would leave ± and minus signs, and a [ after the end of a row, as they are.
        body = rows.to_latex(index=False, header=headings, escape=False, column_format="".join(alignments))
        lines += [
            r"\begin{table}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escaped(section.title)}}}",
            body.rstrip(),
            r"\par\medskip\raggedright",
            *notes,
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    r"""`text` as LaTeX prints it; a character that pdflatex has no letter for becomes a question mark.

    >>> escaped("50 % of a_b & {c}: -0.5 ± 1")
    '50 \\% of a\\_b \\& \\{c\\}: $-$0.5 $\\pm$ 1'
    """
    found = "".join(
        SPECIAL.get(character, character if " " <= character < "\u0180" else "?") for character in text
    )
    return re.sub(r"-(?=-)", "-{}", re.sub(r"(?<![\w.)}])-(?=\d)", "$-$", found))


def _cell(text: str, column: int) -> str:
    marks = MARKED.search(text) if column == TOP1 else None
    return rf"{escaped(text[: marks.start()])}\textsuperscript{{{marks[1]}}}" if marks else escaped(text)


def _noted(line: str) -> str:
    mark, closed, words = line.removeprefix("[").partition("] ")
    return (
        rf"\textsuperscript{{{mark}}} {escaped(words)}" if closed and line.startswith("[") else escaped(line)
    )
