"""`python -m analysis verdicts`: of every published number whether it was reproduced, and the runs that say so.

All sweeps of a folder count as one: a number is judged by the runs of what its source ran, wherever they were planned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import compare, configurations, frame, published, significance, tables, wording
from analysis.compare import DROP_NOT_REPRODUCED, DROP_REPRODUCED, JUDGED

COLUMNS = (
    ("number", False), ("published %", True), ("ours %", True), ("as its label says %", True), ("change", True),
    ("95 %", True), ("our run", False), ("verdict", False),
)  # fmt: skip
LEAST = (6, 5, 4)
"""The columns that a narrow terminal does without, the first first."""


def load(runs: Path) -> pd.DataFrame:
    """A row for each published number and each configuration that judges it, in the order of the sources.

    Columns: those of `compare.compare`; `quote`; `run` and `run_labelled`, our runs of what the source ran and of what
    its label says, each named without its seed; and the `change` from one to the other in points, of a top-1 with its
    95 % interval `low` to `high` and McNemar's `p`, paired over the test images. A number that no run judges has one
    row. Raises AnalysisError where `runs` holds no sweep.
    """
    numbers = published.load()
    marked = configurations.mark(frame.load(runs, *frame.sweeps(runs))[0])
    compared = compare.compare(configurations.summarize(marked, numbers), numbers)
    done = dict(list(marked[marked["state"] == "done"].groupby("configuration")))
    quotes = {number.id: number.quote for number in numbers.numbers}
    rows: list[dict[str, Any]] = []
    for name, group in compared.groupby("id", sort=False):
        candidates = group.to_dict("records")
        judged = [row for row in candidates if row["verdict"] in JUDGED] or candidates[:1]
        rows += [row | _evidence(runs, row, done) | {"quote": quotes[str(name)]} for row in judged]
    return pd.DataFrame(rows)


def _evidence(runs: Path, row: Mapping[str, Any], done: Mapping[Any, pd.DataFrame]) -> dict[str, Any]:
    ran, labelled = (_by_seed(done.get(row[name])) for name in ("configuration", "labelled"))
    answers = [
        [significance.correct(runs, side[seed]["key"]) for side in (ran, labelled)]
        for seed in ran
        if seed in labelled
    ]
    sizes = {None if bits is None else len(bits) for pair in answers for bits in pair}
    found: dict[str, Any] = dict.fromkeys(("low", "high", "p"), math.nan)
    if row["metric"] == "top1" and len(sizes) == 1 and None not in sizes:
        before, after = (np.stack(side) for side in zip(*answers, strict=True))
        found = significance.paired(before, after)
        del found["difference"]
    names = {"run": _named(ran), "run_labelled": _named(labelled)}
    return names | {"change": row["ours_labelled"] - row["ours"]} | found


def _by_seed(group: pd.DataFrame | None) -> dict[int, dict[str, Any]]:
    return {} if group is None else {run["seed"]: run for run in group.to_dict("records")}


def _named(seeds: Mapping[int, Mapping[str, Any]]) -> str:
    for seed, run in seeds.items():
        return f"{run['model']}: {run['name'].removesuffix(f' seed {seed}')}"
    return ""


def cells(table: pd.DataFrame) -> list[list[str]]:
    """The rows of `load` as texts, one for each of COLUMNS."""
    return [_cells(row) for row in table.to_dict("records")]


def _cells(row: Mapping[str, Any]) -> list[str]:
    number = wording.number
    by_drop = row["verdict"] in (DROP_REPRODUCED, DROP_NOT_REPRODUCED)
    drops = [f", drop {number(row[name])}" if by_drop else "" for name in ("published_drop", "our_drop")]
    known = not math.isnan(row["low"])
    return [
        f"{row['source']} {row['published_label']}, {row['metric'].replace('top', 'top-')}",
        number(row["published"]) + drops[0],
        number(row["ours"]) + drops[1] + (f" (n {row['n']})" if row["n"] > 1 else ""),
        number(row["ours_labelled"]),
        number(row["change"], "+.2f"),
        f"{number(row['low'], '+.2f')} to {number(row['high'], '+.2f')}" if known else "",
        row["run"],
        row["verdict"] + ("" if math.isnan(row["tolerance"]) else f" ±{row['tolerance']:.2f}"),
    ]


def summary(table: pd.DataFrame) -> str:
    """How many numbers there are of each verdict, in a line; a number judged by several runs counts by the first."""
    first = table.drop_duplicates("id")
    told = ", ".join(f"{count} {word}" for word, count in Counter(first["verdict"]).most_common())
    return f"{wording.plural(len(first), 'published number')}: {told}."


def markdown(table: pd.DataFrame) -> str:
    """The table, what its words mean, why each number is what it is, and the sources' words."""
    notes = [
        compare.DEFINITION,
        "Change: from our run to that of what the label says, in points, paired over the test images where it has an "
        "interval. A source that names another network than ours is compared by its drop, where it states one.",
    ]
    notes += tables.remarks(table)
    quotes: dict[tuple[str, str], list[str]] = {}
    for row in table.drop_duplicates("id").to_dict("records"):
        quotes.setdefault((row["source"], row["quote"]), []).append(row["published_label"])
    said = [
        f"{source} {', '.join(dict.fromkeys(labels))}: \u201c{quote}\u201d"
        for (source, quote), labels in quotes.items()
    ]
    lists = ["\n".join(f"- {line}" for line in lines) for lines in (notes, said)]
    return "\n\n".join([f"**{summary(table)}**", tables.grid(cells(table), COLUMNS), *lists]) + "\n"


def short(table: pd.DataFrame) -> str:
    """What a README shows: each top-1, its verdict and why it is not what it seems."""
    top1 = table[table["metric"] == "top1"]
    shown, known = [], set()
    for row, told in zip(top1.to_dict("records"), cells(top1), strict=True):
        why = "as above" if row["note"] and row["note"] in known else row["note"]
        known.add(row["note"])
        shown.append([told[0].removesuffix(", top-1"), *told[1:3], told[-1], why])
    columns = [*COLUMNS[:3], COLUMNS[-1], ("why", False)]
    return f"**{summary(table)}** {compare.DEFINITION}\n\n{tables.grid(shown, columns)}\n"
