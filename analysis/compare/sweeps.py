"""What changed from one sweep to another, configuration by configuration, and whether chance explains it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from analysis.compare import configurations, significance
from analysis.compare.configurations import IDENTITY
from analysis.compare.significance import LEVEL, Bits
from analysis.errors import AnalysisError
from analysis.read.budgets import with_widths
from analysis.read.run_folders import parameters
from suite.record.words import is_seed

Row: TypeAlias = dict[str, Any]


WORSE, BETTER, FAILED, UNDONE = "worse", "better", "failed now", "not done in B"
INCONCLUSIVE, EQUAL, FEW = "not significant", "identical per image", "too few seeds"
RETRAINED = "another training, n 1"
MISSING, NEW, GONE = "no result to compare", "only in B", "only in A"
BAD, TESTED = (FAILED, UNDONE, WORSE), (WORSE, BETTER, INCONCLUSIVE, EQUAL)
ORDER = (*BAD, BETTER, INCONCLUSIVE, EQUAL, RETRAINED, FEW, MISSING, NEW, GONE)


@dataclass(frozen=True)
class Side:
    """One of the two sweeps: where its runs lie, its name, and a row a run."""

    runs: Path
    sweep: str
    marked: pd.DataFrame
    _read: dict[str, Bits | None] = field(default_factory=dict)

    def correct(self, key: str) -> Bits | None:
        """`significance.correct` of one of its runs, read once."""
        if key not in self._read:
            self._read[key] = significance.correct(self.runs, key)
        return self._read[key]


@dataclass(frozen=True)
class Diff:
    """`table` has a row a configuration, the worst first; `otherwise` names the fields of the training that differ."""

    before: Side
    after: Side
    table: pd.DataFrame
    otherwise: Sequence[str]

    @property
    def is_worse(self) -> bool:
        """Whether a configuration is significantly worse, or is not done that was done before."""
        return bool(self.table["verdict"].isin(BAD).any())

    @property
    def is_tested(self) -> bool:
        """Whether a configuration could be tested at all: without one, nothing worse is no good news."""
        return bool(self.table["verdict"].isin(TESTED).any())


def load(before: tuple[Path, str], after: tuple[Path, str]) -> Diff:
    """Compare two sweeps, each given as the folder of its runs and its name. Raises AnalysisError where one cannot be
    read, where both are the same, and where they share no configuration."""
    if before[0].resolve() == after[0].resolve() and before[1] == after[1]:
        raise AnalysisError(
            f"A and B are both {before[1]!r} in {before[0]}; name another sweep, or another folder with --runs-b"
        )
    a, b = (Side(runs, sweep, configurations.load(runs, sweep)[0]) for runs, sweep in (before, after))
    named, every = _matched_by(a.marked, b.marked)
    groups = [_grouped(side.marked, named) for side in (a, b)]
    common = [name for name in groups[0] if name in groups[1]]
    if not common:
        raise AnalysisError(f"{a.sweep!r} and {b.sweep!r} have no configuration in common; compare others")
    rows = [
        _compared(a, b, groups[0].get(name, []), groups[1].get(name, []))
        for name in dict.fromkeys([*groups[1], *groups[0]])
    ]
    for row, p in zip(rows, significance.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
        row["verdict"] = row["verdict"] or _verdict(row)
    table = with_widths(pd.DataFrame(sorted(rows, key=lambda row: ORDER.index(row["verdict"]))))
    rest = [name for name in every if name not in named and not is_seed(name)]
    return Diff(a, b, table, _otherwise(groups, common, rest))


def _matched_by(before: pd.DataFrame, after: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The parameters that a configuration is known by on both sides, and all that both have.

    Those of the method, model and data set; where that does not distinguish the runs of a side, those of the training
    as well. A field that only one side knows, as a newer version may, counts where nothing else distinguishes runs.
    """
    mine, yours = parameters(before), parameters(after)
    both = [name for name in mine if name in yours]
    floats = [side[side["kind"] != "Recipe"] for side in (before, after)]
    of_method = [
        name
        for name in both
        if name in IDENTITY or is_seed(name) or all(side[name].isna().all() for side in floats)
    ]
    for named in (of_method, both):
        if not any(pd.Series(_ids(side, named)).duplicated().any() for side in (before, after)):
            return named, both
    return sorted({*mine, *yours}), both


def _ids(side: pd.DataFrame, names: Iterable[str]) -> list[str]:
    chosen = [name for name in names if name in side]
    return [
        json.dumps(
            {name: value for name, value in row.items() if value is not None and value == value}, default=str
        )
        for row in side[chosen].to_dict("records")
    ]


def _grouped(side: pd.DataFrame, named: Sequence[str]) -> dict[str, list[Row]]:
    """The runs of each configuration, in the order of the plan; a run's `pair` is its seeds."""
    seeds = _ids(side, [name for name in named if is_seed(name)])
    found: dict[str, list[Row]] = {}
    configurations = _ids(side, [name for name in named if not is_seed(name)])
    for name, pair, row in zip(configurations, seeds, side.to_dict("records"), strict=True):
        found.setdefault(name, []).append(row | {"pair": pair})
    return found


def _compared(a: Side, b: Side, before: list[Row], after: list[Row]) -> Row:
    """A row of the table; `verdict` is empty where it follows from p."""
    first = (after or before)[0]
    row: Row = {name: first[name] for name in ("model", "dataset", "label", "weight_bits", "act_bits")}
    olds, news = ([run for run in runs if run["state"] == "done"] for runs in (before, after))
    pairs = [(old, new) for old in olds for new in news if old["pair"] == new["pair"]]
    results = _per_image(a, b, pairs)
    if results is not None:
        olds, news = [old for old, _ in pairs], [new for _, new in pairs]
    row |= {"n_a": len(olds), "n_b": len(news), "top1_a": _mean("top1", olds), "top1_b": _mean("top1", news)}
    row["float_stage"] = _float_stages(a, b, pairs)
    row |= _tested(olds, news, results, _is_retrained((*olds, *news), row["float_stage"]))
    alike = len({run["device"] for run in (*olds, *news)}) == 1
    row["speed_ratio"] = _ratio("images_per_s", olds, news) if alike else math.nan
    row["size_ratio"] = _ratio("model_size_mb", olds, news)
    return row | {"verdict": _untested(before, after) or row["verdict"]}


def _untested(before: Sequence[Row], after: Sequence[Row]) -> str:
    """The verdict that follows from the states alone; empty where both sides have results."""
    if not before or not after:
        return NEW if after else GONE
    done = {run["pair"] for run in before if run["state"] == "done"}
    lost = {run["state"] for run in after if run["pair"] in done} - {"done"}
    if lost:
        return FAILED if "failed" in lost else UNDONE
    return "" if done and any(run["state"] == "done" for run in after) else MISSING


def _is_retrained(runs: Iterable[Row], float_stage: str) -> bool:
    """Whether the two sides are different trainings, their own or that of the network they were made from."""
    trained = any(run["kind"] == "Training" or pd.notna(run.get("feed_epochs")) for run in runs)
    return trained or float_stage in ("other", "unknown")


def _tested(
    olds: Sequence[Row], news: Sequence[Row], results: tuple[Bits, Bits] | None, retrained: bool
) -> Row:
    """The change, its interval and p, and `by` what it was judged. That of two trainings has to hold over images and
    over seeds: the same images do not show what yet another training would have given."""
    equal = results is not None and np.array_equal(*results)
    found = {"difference": math.nan} if results is None else significance.paired(*results)
    by, verdict = "images", ""
    if results is None or (retrained and not equal):
        over_seeds = significance.welch([run["top1"] for run in olds], [run["top1"] for run in news])
        found = over_seeds if results is None else significance.doubtful(found, over_seeds)
        by = "" if math.isnan(found["p"]) else "seeds" if results is None else "both"
        verdict = RETRAINED if results is not None and len(olds) == 1 else ""
    return found | {"by": by, "equal": equal, "verdict": verdict}


def _per_image(a: Side, b: Side, pairs: Sequence[tuple[Row, Row]]) -> tuple[Bits, Bits] | None:
    """Bool [seeds, images] of either side, where each pair was tested on the same data and recorded every image."""
    read = [(a.correct(old["key"]), b.correct(new["key"])) for old, new in pairs]
    same = all(
        old["test_sha256"] is not None and old["test_sha256"] == new["test_sha256"] for old, new in pairs
    )
    return significance.stacked(read) if same else None


def _float_stages(a: Side, b: Side, pairs: Sequence[tuple[Row, Row]]) -> str:
    """Whether the float networks that were quantized give the same results per image on both sides."""
    stages = {(old["start"], new["start"]) for old, new in pairs}
    if not stages or None in {key for pair in stages for key in pair}:
        return ""
    results = [(a.correct(old), b.correct(new)) for old, new in stages]
    if any(old is None or new is None for old, new in results):
        return "unknown"
    return "same" if all(np.array_equal(old, new) for old, new in results) else "other"  # type: ignore[arg-type]


def _mean(what: str, runs: Sequence[Row]) -> float:
    return float(np.mean([run[what] for run in runs])) if runs else math.nan


def _ratio(what: str, olds: Sequence[Row], news: Sequence[Row]) -> float:
    before = _mean(what, olds)
    return _mean(what, news) / before if before else math.nan


def _verdict(row: Row) -> str:
    if math.isnan(row["p"]):
        return FEW
    if row["p_holm"] < LEVEL:
        return WORSE if row["difference"] < 0 else BETTER
    return EQUAL if row["equal"] else INCONCLUSIVE


def _otherwise(
    groups: Sequence[dict[str, list[Row]]], common: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Each parameter beyond those matched by that differs between the sides, with the values of either."""
    lines = []
    for name in names:
        values = [
            {str(run[name]) for key in common for run in side[key] if run[name] is not None}
            for side in groups
        ]
        if values[0] != values[1]:
            old, new = ("/".join(sorted(side)) or "none" for side in values)
            lines.append(f"{name} {old} → {new}")
    return lines
