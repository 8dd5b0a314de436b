"""Runs with a width for each layer: what each came to, and beside what is uniform or random within the same budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.read.width_records import TOTALS, WidthRecord, read_widths

METHOD = "mixed"
UNIFORM, RANDOM = "uniform", "random"
COLUMNS = ("key", "model", "dataset", "of", "by", "name", "seed", "weight_bits", "act_bits", "top1", "size_bits",
           "bops_per_mac")  # fmt: skip


@dataclass(frozen=True)
class Widths:
    """`points`: COLUMNS and TOTALS, a row for each finished run whose record can be read, in plan order; `records` by
    its key. `problems`: why others are left out."""

    points: pd.DataFrame
    records: Mapping[str, WidthRecord]
    problems: tuple[str, ...] = ()


def load(runs: Path, marked: pd.DataFrame) -> Widths | None:
    """Of a table made by `configurations.mark`; None where no such run is done."""
    mine = marked[(marked["method"] == METHOD) & (marked["state"] == "done")]
    if not len(mine) or not {"by", "of", "size_bits", "bops_per_mac"} <= set(mine.columns):
        return None
    rows: list[dict[str, Any]] = []
    records: dict[str, WidthRecord] = {}
    problems = []
    for run in mine.to_dict("records"):
        try:
            records[run["key"]] = found = read_widths(runs, run["key"])
        except AnalysisError as problem:
            problems.append(f"{run['key']}: {problem}")
            continue
        rows.append({**run, "name": _name(run), **found.totals})
    points = pd.DataFrame(rows, columns=[*COLUMNS, *TOTALS])
    return Widths(points, records, tuple(problems)) if rows else None


def _name(run: Mapping[str, Any]) -> str:
    """`mse, w4a4` of uniform widths, `mse, gradient, 4 bits` of chosen ones."""
    if run["by"] == UNIFORM:
        return f"{run['of']}, w{run['weight_bits']}a{run['act_bits']}"
    return f"{run['of']}, {run['by']}, {run['size_bits']:g} bits"


def chosen(points: pd.DataFrame) -> pd.DataFrame:
    """The rows whose widths were chosen by a score."""
    return points[~points["by"].isin([UNIFORM, RANDOM])]


def beside(points: pd.DataFrame) -> list[dict[str, Any]]:
    """Each chosen row with what it is to beat: `uniform_top1`, of the same method, network and seed at the widths of
    the budget, whose names are `uniform`. A budget between two uniform widths has the point of that size on the line
    between them; NaN and "" where there is neither. Of the random widths within the same budget `random_top1`, their
    mean, `random_n`, and `random_beaten`, the part of them that it is above."""
    rows = []
    for row in chosen(points).to_dict("records"):
        same = points
        for name in ("model", "dataset", "of", "seed"):
            same = same[same[name] == row[name]]
        name, uniform = _uniform(same[same["by"] == UNIFORM], row)
        drawn = same[(same["by"] == RANDOM) & _equal(same, row)]["top1"]
        rows.append(
            {
                **row,
                "uniform": name,
                "uniform_top1": uniform,
                "random_top1": float(drawn.mean()) if len(drawn) else math.nan,
                "random_n": len(drawn),
                "random_beaten": float((drawn < row["top1"]).mean()) if len(drawn) else math.nan,
            }
        )
    return rows


def _uniform(uniform: pd.DataFrame, row: Mapping[str, Any]) -> tuple[str, float]:
    """(name, top-1) of uniform widths at the budget of `row`, or on the line between the two about its size."""
    equal = uniform[_equal(uniform, row)]
    if len(equal):
        return _bits(equal.iloc[0]), float(equal["top1"].mean())
    rows = uniform.sort_values("size_mb")
    below, above = (
        rows[rows["size_mb"] <= row["size_mb"]].tail(1),
        rows[rows["size_mb"] > row["size_mb"]].head(1),
    )
    if not len(below) or not len(above):
        return "", math.nan
    low, high = below.iloc[0], above.iloc[0]
    part = (row["size_mb"] - low["size_mb"]) / (high["size_mb"] - low["size_mb"])
    return f"{_bits(low)} to {_bits(high)}", float(low["top1"] + part * (high["top1"] - low["top1"]))


def _bits(row: pd.Series[Any]) -> str:
    return f"w{row['weight_bits']:.0f}a{row['act_bits']:.0f}"


def won(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of rows of `beside`, a sentence for each network, method and score: at how many budgets they are above uniform
    widths, and above how many of the drawn ones."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["dataset"], row["of"], row["by"]), []).append(row)
    found = []
    for (model, dataset, of, by), mine in groups.items():
        compared = [row for row in mine if not math.isnan(row["uniform_top1"])]
        words = f"{model} on {dataset}, {of}, chosen by {by}:"
        if compared:
            above = sum(row["top1"] > row["uniform_top1"] for row in compared)
            words += f" above uniform widths of the same size at {above} of {len(compared)} budgets;"
        drawn = sum(row["random_n"] for row in mine)
        if drawn:
            beaten = sum(round(row["random_n"] * row["random_beaten"]) for row in mine if row["random_n"])
            words += (
                f" above {beaten} of {drawn} random choices within the same budgets ({beaten / drawn:.0%});"
            )
        if words[-1] == ";":
            found.append(f"{words[:-1]}.")
    return found


def _equal(points: pd.DataFrame, row: Mapping[str, Any]) -> Any:
    """Which have the budgets of `row`."""
    same = points["size_bits"] == row["size_bits"]
    return same & (points["bops_per_mac"] == row["bops_per_mac"])
