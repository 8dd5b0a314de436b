"""Runs with a width for each layer: what each came to, and beside what is uniform or random within the same budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare import significance, versus_best
from analysis.compare.configurations import widths
from analysis.compare.significance import LEVEL
from analysis.compare.versus_best import Read
from analysis.errors import AnalysisError
from analysis.read.budgets import METHOD, RANDOM, UNIFORM, with_widths
from analysis.read.run_folders import parameters
from analysis.read.width_records import TOTALS, WidthRecord, read_widths
from suite.record.words import counted, is_seed

Row = dict[str, Any]

GROUP = ("model", "dataset", "of")
"""What rows that are compared have in common: a network, and the method whose layers got widths."""
BUDGET = ("size_bits", "bops_per_mac", "latency_ms")
OWN = (*GROUP, "by", "name", "weight_bits", "act_bits", "n", *TOTALS, "top1")
BESIDE = (
    *("uniform", "uniform_size_mb", "uniform_top1", "gain", "low", "high", "p", "p_holm"),
    *("random_n", "random_top1", "random_best", "random_beaten"),
)


@dataclass(frozen=True)
class Widths:
    """`points`: of each finished run whose record can be read the columns of `configurations.mark`, with its `name`
    and TOTALS, in plan order; `records` by its key. `problems`: why others are left out."""

    points: pd.DataFrame
    records: Mapping[str, WidthRecord]
    problems: tuple[str, ...] = ()


def load(runs: Path, marked: pd.DataFrame) -> Widths | None:
    """Of a table made by `configurations.mark`; None where no such run is done."""
    mine = marked[(marked["method"] == METHOD) & (marked["state"] == "done")]
    if not len(mine) or not {"by", "of", "size_bits", "bops_per_mac"} <= set(mine.columns):
        return None
    rows: list[Row] = []
    records: dict[str, WidthRecord] = {}
    problems = []
    for run in _runs(mine):
        try:
            records[run["key"]] = found = read_widths(runs, run["key"])
        except AnalysisError as problem:
            problems.append(f"{run['key']}: {problem}")
            continue
        run["latency_ms"] = run.get("latency_ms") or 0.0
        rows.append({**run, "name": _name(run), **found.totals})
    return Widths(pd.DataFrame(rows), records, tuple(problems)) if rows else None


def _name(run: Mapping[Any, Any]) -> str:
    """`uniform, 4 bits`, `by noise, 2.5 bits`, `by noise, 1.2 ms` of a budget of time."""
    bits = f"{run['weight_bits']:g} bits" if run["weight_bits"] == run["act_bits"] else widths(run)
    milliseconds = run["latency_ms"]
    budget = f"{milliseconds:g} ms" if milliseconds and run["by"] != UNIFORM else bits
    return f"{run['by'] if run['by'] in (UNIFORM, RANDOM) else 'by ' + run['by']}, {budget}"


def chosen(points: pd.DataFrame) -> pd.DataFrame:
    """The rows whose widths were chosen by a score."""
    return points[~points["by"].isin([UNIFORM, RANDOM])]


def first_of_each(points: pd.DataFrame) -> pd.DataFrame:
    """The chosen runs of the lowest seed of each configuration."""
    ordered = chosen(points).sort_values("seed", kind="stable")
    return ordered.drop_duplicates("configuration").sort_index()


def by_group(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each network and method, in their order, with a title."""
    groups = points.groupby(list(GROUP), sort=False)
    return [(f"{model} on {dataset}, {of}", group) for (model, dataset, of), group in groups]


def compared(runs: Path, points: pd.DataFrame) -> pd.DataFrame:
    """A row, with OWN and BESIDE, for each configuration of each network and method: uniform widths, then chosen and
    random ones. `n` counts its runs, over which TOTALS and `top1` are means.

    A chosen row has beside it the `uniform` widths of its budget and, paired image by image over the runs of the same
    seeds, its `gain` in points with a 95 % interval, an exact p and that corrected for all rows (Holm). A budget
    between two uniform ones has the point of its size on the line between them, which is not tested; NaN and ""
    where there is neither. Of the `random_n` random choices within its budget there are the mean, the best, and
    `random_beaten`, the part of them that it is above.
    """
    read = cache(partial(significance.correct, runs))
    rows: list[Row] = []
    for _, group in by_group(points):
        configurations = [own for _, own in group.groupby("configuration", sort=False)]
        uniform = [own for own in configurations if own["by"].iloc[0] == UNIFORM]
        for own in sorted(configurations, key=_place):
            is_chosen = len(chosen(own)) > 0
            beside = _beside(own, uniform, read) | _over(own, group) if is_chosen else {}
            rows.append(_own(own) | {"uniform": "", "random_n": 0} | beside)
    table = with_widths(pd.DataFrame(rows, columns=[*OWN, *BESIDE]))
    return table.assign(p_holm=significance.holm(list(table["p"])))


def _place(own: pd.DataFrame) -> int:
    return {UNIFORM: 0, RANDOM: 2}.get(own["by"].iloc[0], 1)


def _own(own: pd.DataFrame) -> Row:
    first = own.iloc[0]
    return (
        {name: first[name] for name in (*GROUP, "by", "name", "weight_bits", "act_bits")}
        | {name: float(own[name].mean()) for name in (*TOTALS, "top1")}
        | {"n": len(own)}
    )


def _beside(own: pd.DataFrame, uniform: Sequence[pd.DataFrame], read: Read) -> Row:
    """The uniform widths of the budget, or those on either side."""
    row = _own(own)
    for other in uniform:
        if _have_budget(other, own.iloc[0]).all():
            pairs = versus_best.pairs(_runs(other), _runs(own), _seeds(own))
            top1 = float(pd.Series([before["top1"] for before, _ in pairs], dtype="float64").mean())
            found = versus_best.tested(pairs, read)
            gain = row["top1"] - top1 if math.isnan(found["difference"]) else found["difference"]
            named = {"uniform": widths(other.iloc[0]), "uniform_size_mb": _own(other)["size_mb"]}
            return (
                named
                | {"uniform_top1": top1, "gain": gain}
                | {end: found[end] for end in ("low", "high", "p")}
            )
    sizes = sorted((_own(other) for other in uniform), key=lambda other: other["size_mb"])
    below = [other for other in sizes if other["size_mb"] <= row["size_mb"]][-1:]
    above = [other for other in sizes if other["size_mb"] > row["size_mb"]][:1]
    if not below or not above:
        return {}
    (low,), (high,) = below, above
    part = (row["size_mb"] - low["size_mb"]) / (high["size_mb"] - low["size_mb"])
    top1 = low["top1"] + part * (high["top1"] - low["top1"])
    return {
        "uniform": f"{widths(low)} to {widths(high)}",
        "uniform_size_mb": row["size_mb"],
        "uniform_top1": top1,
        "gain": row["top1"] - top1,
    }


def _over(own: pd.DataFrame, group: pd.DataFrame) -> Row:
    """The random choices within the budget, each beside the chosen run of its float network and seed."""
    drawn = group[(group["by"] == RANDOM) & _have_budget(group, own.iloc[0])]
    if not len(drawn):
        return {}
    pairs = versus_best.pairs(_runs(own), _runs(drawn), _seeds(own))
    beaten = [before["top1"] > after["top1"] for before, after in pairs]
    return {
        "random_n": len(drawn),
        "random_top1": float(drawn["top1"].mean()),
        "random_best": float(drawn["top1"].max()),
        "random_beaten": sum(beaten) / len(beaten) if beaten else math.nan,
    }


def _have_budget(points: pd.DataFrame, row: Mapping[str, Any] | pd.Series[Any]) -> pd.Series[bool]:
    """Which have the budgets of `row`."""
    return (points[list(BUDGET)] == [row[name] for name in BUDGET]).all(axis=1)


def _runs(points: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in points.to_dict("records")]


def _seeds(points: pd.DataFrame) -> list[str]:
    return [name for name in parameters(points) if is_seed(name)]


def won(table: pd.DataFrame) -> list[str]:
    """Of the table of `compared`, a sentence for each network, method and score: at how many budgets it is above
    uniform widths, at how many of them significantly, and above how many of the random ones."""
    found = []
    for (model, dataset, of, by), mine in chosen(table).groupby([*GROUP, "by"], sort=False):
        words = []
        beside = mine[mine["uniform_top1"].notna()]
        if len(beside):
            above = int((beside["gain"] > 0).sum())
            clear = beside[beside["p_holm"] < LEVEL]["gain"]
            words.append(
                f"above uniform widths of the same size at {above} of {counted(len(beside), 'budget')}"
            )
            words.append(
                f"of {int(beside['p'].notna().sum())} that are tested, significantly above at "
                f"{int((clear > 0).sum())} and below at {int((clear < 0).sum())}"
            )
        drawn = int(mine["random_n"].sum())
        if drawn:
            beaten = round(float((mine["random_n"] * mine["random_beaten"]).sum()))
            words.append(
                f"above {beaten} of {drawn} random choices within the same budgets ({beaten / drawn:.0%})"
            )
        if words:
            found.append(f"{model} on {dataset}, {of}, chosen by {by}: {'; '.join(words)}.")
    return found
