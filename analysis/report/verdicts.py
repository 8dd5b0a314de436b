"""`suite verdicts`: of every published number whether it was reproduced, and the runs that decide it.

All sweeps of a folder count as one: a number is judged by the runs of what its source ran, wherever they were planned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare import agreement, configurations, significance
from analysis.compare.agreement import JUDGED
from analysis.errors import AnalysisError
from analysis.read import published, run_folders
from analysis.report import tables, to_judge, wording
from suite.record.words import counted, is_seed

COLUMNS = (
    ("number", False), ("published %", True), ("re-run %", True), ("if done as labelled %", True), ("change", True),
    ("95 %", True), ("our re-run", False), ("does it agree", False), ("verdict", False),
)  # fmt: skip
LEAST = (6, 5, 4, 7)
"""The columns that a narrow terminal does without, the first first."""
NOTES = (
    "Re-run: ours of what the source ran, as far as its code, its text and its numbers show. Change: from it to what "
    "the label says, in points, paired over the test images where it has an interval. On another network than the "
    "published one drops are compared, where the source states a float accuracy.",
    "At 8 bits nearly every sound method keeps the accuracy, so that a reproduced drop says little of the method.",
)


@dataclass(frozen=True)
class Verdicts:
    """`table` has a row for each published number and each configuration that re-runs it, in the order of the sources.

    Its columns: those of `compare.compare`; `quote`; `run` and `run_labelled`, our runs of what the source ran and of
    what its label says, each named without its seed; and the `change` from one to the other in points, of a top-1 over
    the seeds that both have, with its 95 % interval `low` to `high` and McNemar's `p`, paired over the test images.
    `problems` are the sweeps and runs that cannot be used.
    """

    table: pd.DataFrame
    problems: Sequence[str]


def load(runs: Path) -> Verdicts:
    """Judge by all sweeps in `runs`. Raises AnalysisError where there is none that can be read."""
    numbers = published.load()
    usable, problems = [], []
    for sweep in run_folders.sweeps(runs):
        try:
            run_folders.planned(runs, sweep)
            usable.append(sweep)
        except AnalysisError as problem:
            problems.append(str(problem))
    if not usable:
        raise AnalysisError(problems[0])
    marked = configurations.mark(run_folders.load(runs, *usable)[0])
    compared = agreement.compare(configurations.summarize(marked, numbers), numbers)
    done = dict(list(marked[marked["state"] == "done"].groupby("configuration")))
    quotes = {number.id: number.quote for number in numbers.numbers}
    rows: list[dict[str, Any]] = []
    for name, group in compared.groupby("id", sort=False):
        candidates = group.to_dict("records")
        judged = [row for row in candidates if row["verdict"] in JUDGED] or candidates[:1]
        rows += [row | _evidence(runs, row, done) | {"quote": quotes[str(name)]} for row in judged]
    return Verdicts(pd.DataFrame(rows), problems + marked["problem"].dropna().tolist())


def _evidence(runs: Path, row: Mapping[str, Any], done: Mapping[Any, pd.DataFrame]) -> dict[str, Any]:
    ran, labelled = (_by_seed(done.get(row[name])) for name in ("configuration", "labelled"))
    both = [
        (significance.correct(runs, ran[seed]["key"]), significance.correct(runs, labelled[seed]["key"]))
        for seed in ran
        if seed in labelled
    ]
    results = significance.stacked(both)
    found: dict[str, Any] = dict.fromkeys(("low", "high", "p"), math.nan)
    found["change"] = row["ours_labelled"] - row["ours"]
    if row["metric"] == "top1" and results is not None:
        found = significance.paired(*results)
        found["change"] = found.pop("difference")
    return {"run": _named(ran), "run_labelled": _named(labelled)} | found


def _by_seed(group: pd.DataFrame | None) -> dict[tuple[Any, ...], dict[str, Any]]:
    if group is None:
        return {}
    names = [name for name in run_folders.parameters(group) if is_seed(name)]
    return {tuple(str(run[name]) for name in names): run for run in group.to_dict("records")}


def _named(seeds: Mapping[Any, Mapping[str, Any]]) -> str:
    for run in seeds.values():
        return f"{run['model']}: {run['name'].rpartition(' seed ')[0] or run['name']}"
    return ""


def cells(table: pd.DataFrame) -> list[list[str]]:
    """The rows of a table of verdicts as texts, one for each of COLUMNS."""
    return [_cells(row) for row in table.to_dict("records")]


def _cells(row: Mapping[str, Any]) -> list[str]:
    number = wording.number
    beside = not math.isnan(row["published_drop"])
    drops = [
        f", drop {number(row[name])}" if beside and not math.isnan(row[name]) else ""
        for name in ("published_drop", "our_drop", "labelled_drop")
    ]
    counted = f" (n {row['n']})" if row["n"] > 1 else ""
    tolerance = "" if math.isnan(row["tolerance"]) else f" ±{row['tolerance']:.2f}"
    return [
        f"{wording.published(row)}, {row['metric'].replace('top', 'top-')}",
        number(row["published"]) + drops[0],
        number(row["ours"]) + drops[1] + counted,
        number(row["ours_labelled"]) + drops[2],
        number(row["change"], "+.2f"),
        wording.interval(row),
        row["run"],
        row["rerun"] + tolerance,
        row["verdict"],
    ]


def summary(table: pd.DataFrame) -> str:
    """How many numbers there are of each verdict, in a line; a number judged by several runs counts by the first."""
    first = table.drop_duplicates("id")
    counts = Counter(first["verdict"]).most_common()
    listed = "; ".join(f"{verdict}: {count}" for verdict, count in counts)
    return f"{counted(len(first), 'published number')}. {listed[:1].upper()}{listed[1:]}."


def markdown(table: pd.DataFrame) -> str:
    """The table, what its words mean, why each number is what it is, and the sources' words."""
    quotes: dict[tuple[str, str], list[str]] = {}
    for row in table.drop_duplicates("id").to_dict("records"):
        quotes.setdefault((row["source"], row["quote"]), []).append(row["published_label"])
    quoted = [
        f"{', '.join(dict.fromkeys(labels))} ({source}): \u201c{quote}\u201d"
        for (source, quote), labels in quotes.items()
    ]
    notes = [
        agreement.DEFINITION,
        *NOTES,
        *to_judge.remedies(table),
        *tables.sources(set(table["source"])),
        *tables.remarks(table),
    ]
    lists = ["\n".join(f"- {line}" for line in lines) for lines in (notes, quoted)]
    return "\n\n".join([f"**{summary(table)}**", tables.grid(cells(table), COLUMNS), *lists]) + "\n"


def short(table: pd.DataFrame) -> str:
    """What a README shows: each top-1, by the first run that judges it, and why it is not what it seems."""
    top1 = table[table["metric"] == "top1"].drop_duplicates("id")
    shown, above = [], ""
    for row, texts in zip(top1.to_dict("records"), cells(top1), strict=True):
        why = "as above" if row["note"] and row["note"] == above else row["note"]
        above = row["note"]
        shown.append([texts[0].removesuffix(", top-1"), *texts[1:4], texts[-1], why])
    columns = [*COLUMNS[:4], COLUMNS[-1], ("why", False)]
    lines = [f"**{summary(top1)}** {agreement.DEFINITION}", tables.grid(shown, columns), NOTES[1]]
    return "\n\n".join(lines) + "\n"
