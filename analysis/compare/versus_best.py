"""Which configurations are worse than the best of their widths, and which are not significantly different from it.

A class is what quantizes the same float networks to weights and activations of the same widths. Two configurations of
it are compared image by image over their pairs of runs: made from the same float network, with the same seeds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from analysis.compare import significance
from analysis.compare.significance import LEVEL, Bits
from analysis.read.budgets import with_widths
from analysis.read.run_folders import parameters
from suite.record.words import is_seed

Row: TypeAlias = dict[str, Any]
Pairs: TypeAlias = Sequence[tuple[Row, Row]]
Read: TypeAlias = Callable[[str], Bits | None]

BEST, WORSE, BETTER = "best", "worse", "better where both ran"
INCONCLUSIVE = "not significantly different"
NO_COMMON_RUN, OTHER_DATA, UNKNOWN_DATA = "no run in common", "other test data", "test data not recorded"
NO_IMAGES, FEW = "per-image results missing", "too few trainings"
UNTESTED = dict.fromkeys(("difference", "low", "high", "p"), math.nan)
NETWORK = ("model", "dataset", "float_network")
CLASS = (*NETWORK, "weight_bits", "act_bits")
COLUMNS = (
    *CLASS,
    *("label", "n", "top1", "difference", "low", "high", "p", "p_holm", "by", "verdict", "configuration"),
)


def table(runs: Path, marked: pd.DataFrame) -> pd.DataFrame:
    """A row, with COLUMNS, for each configuration of every class of two or more with a finished run; the classes from
    wide to narrow, in each the best first.

    `float_network` is the label of the networks it was made from, `n` the number of its pairs of runs with the best
    (of the best, of its runs), `top1` the mean of these. `difference` is that to the best in points, low..high its
    95 % interval, `p` the exact test's and `p_holm` that corrected for all rows; NaN, and in `verdict` the reason,
    where the two cannot be compared. `by` is "images", or "both" where a side was trained on and the difference has to
    hold over trainings, too.
    """
    names = [name for name in parameters(marked) if is_seed(name)]
    stages = {row["key"]: row for row in marked[["key", "configuration", "label"]].to_dict("records")}
    done = marked[(marked["state"] == "done") & marked["start"].isin(stages.keys())]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in done.to_dict("records"):
        float_stage = stages[row["start"]]
        row["float_network"] = float_stage["label"]
        groups.setdefault((float_stage["configuration"], row["weight_bits"], row["act_bits"]), []).append(row)
    rows = [row for group in groups.values() for row in _class(group, names, runs)]
    for row, p in zip(rows, significance.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
        row["verdict"] = row["verdict"] or _verdict(row)
    rows.sort(
        key=lambda row: (
            *(row[name] for name in ("dataset", "model", "float_network")),
            -row["weight_bits"],
            -row["act_bits"],
        )
    )
    return with_widths(pd.DataFrame(rows, columns=list(COLUMNS)))


def _class(group: Sequence[Row], seeds: Sequence[str], runs: Path) -> list[Row]:
    """The rows of a class, the best first; none for a single configuration."""
    configurations: dict[str, list[Row]] = {}
    for row in group:
        configurations.setdefault(row["configuration"], []).append(row)
    if len(configurations) < 2:
        return []
    read = cache(partial(significance.correct, runs))  # the per-image results of a class, freed with it
    best = _best(configurations)
    reference = configurations.pop(best)
    first = _row(reference, [(run, run) for run in reference]) | {"difference": 0.0, "verdict": BEST}
    rows = [_compared(reference, own, seeds, read) for own in configurations.values()]
    return [first, *sorted(rows, key=_lost)]


def _lost(row: Row) -> tuple[bool, float]:
    known = not math.isnan(row["difference"])
    return not known, -(row["difference"] if known else row["top1"])


def _best(configurations: Mapping[str, Sequence[Row]]) -> str:
    """That of the highest mean top-1 on the networks and data that most of them ran on: none wins by having run where
    it is easy."""
    conditions = {name: {_condition(run) for run in own} for name, own in configurations.items()}
    counts = Counter(condition for own in conditions.values() for condition in own)
    shared = max(counts.values())
    usual = {condition for condition, count in counts.items() if count == shared}
    most = max(len(own & usual) for own in conditions.values())

    def mean(name: str) -> float:
        return float(np.mean([run["top1"] for run in configurations[name] if _condition(run) in usual]))

    return max((name for name, own in conditions.items() if len(own & usual) == most), key=mean)


def _condition(run: Row) -> tuple[str, str | None]:
    return run["start"], run["test_sha256"]


def _compared(reference: Sequence[Row], own: Sequence[Row], seeds: Sequence[str], read: Read) -> Row:
    """A row of the table; `verdict` is empty where it follows from p."""
    both = pairs(reference, own, seeds)
    return _row(own, both) | tested(both, read)


def tested(both: Pairs, read: Read) -> Row:
    """The change from the first runs of the pairs to the second, on the same images: `difference` in points with
    `low`..`high` and `p`, what it was tested `by`, and as `verdict` why not, where it was not; else ""."""
    found: Row = UNTESTED | {"by": ""}
    if not both:
        return found | {"verdict": NO_COMMON_RUN}
    data = {run["test_sha256"] for pair in both for run in pair}
    if len(data) > 1 or None in data:
        return found | {"verdict": UNKNOWN_DATA if None in data else OTHER_DATA}
    results = significance.stacked([(read(best["key"]), read(run["key"])) for best, run in both])
    if results is None:
        return found | {"verdict": NO_IMAGES}
    before, after = results
    found = significance.paired(before, after) | {"by": "images"}
    if any(_is_trained(run) for pair in both for run in pair) and not np.array_equal(before, after):
        found |= significance.doubtful(found, _over_trainings(both)) | {"by": "both"}
    return found | {"verdict": FEW if math.isnan(found["p"]) else ""}


def pairs(reference: Sequence[Row], own: Sequence[Row], seeds: Sequence[str]) -> Pairs:
    """(run of the reference, run) of the same float network whose seeds agree, as far as both have them."""
    by_network: dict[str, list[Row]] = {}
    for best in reference:
        by_network.setdefault(best["start"], []).append(best)

    def agree(best: Row, run: Row) -> bool:
        known = (name for name in seeds if pd.notna(best[name]) and pd.notna(run[name]))
        return all(best[name] == run[name] for name in known)

    return [(best, run) for run in own for best in by_network.get(run["start"], ()) if agree(best, run)]


def _row(own: Sequence[Row], pairs: Pairs) -> Row:
    top1 = np.mean([run["top1"] for run in ([run for _, run in pairs] or own)])
    return {name: own[0][name] for name in (*CLASS, "label", "configuration")} | UNTESTED | {
        "p_holm": math.nan, "n": len(pairs), "top1": float(top1), "by": "", "verdict": ""
    }  # fmt: skip


def _is_trained(run: Row) -> bool:
    return bool(pd.notna(run.get("feed_epochs")))


def _over_trainings(pairs: Pairs) -> dict[str, float]:
    """The test over the trainings of either side, each counted once."""
    sides = ({run["key"]: run["top1"] for run in side} for side in zip(*pairs, strict=True))
    return significance.welch(*(list(side.values()) for side in sides))


def _verdict(row: Row) -> str:
    if not row["p_holm"] < LEVEL:
        return INCONCLUSIVE
    return WORSE if row["difference"] < 0 else BETTER
