"""Runs with a width for each layer: what each came to, and beside what is uniform or random within the same budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    the budget (NaN where there is none), and of the random widths within the same budget `random_top1`, their mean,
    `random_n`, and `random_beaten`, the part of them that it is above."""
    rows = []
    for row in chosen(points).to_dict("records"):
        same = points
        for name in ("model", "dataset", "of", "seed"):
            same = same[same[name] == row[name]]
        uniform = same[(same["by"] == UNIFORM) & _equal(same, row)]
        drawn = same[(same["by"] == RANDOM) & _equal(same, row)]["top1"]
        rows.append(
            {
                **row,
                "uniform_top1": float(uniform["top1"].mean()) if len(uniform) else math.nan,
                "random_top1": float(drawn.mean()) if len(drawn) else math.nan,
                "random_n": len(drawn),
                "random_beaten": float((drawn < row["top1"]).mean()) if len(drawn) else math.nan,
            }
        )
    return rows


def _equal(points: pd.DataFrame, row: Mapping[str, Any]) -> Any:
    """Which have the budgets of `row`."""
    same = points["size_bits"] == row["size_bits"]
    return same & (points["bops_per_mac"] == row["bops_per_mac"])
