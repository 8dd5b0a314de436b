"""The table of all runs: a row a run, holes included, for the page's script to sort and filter."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis.compare.configurations import FLOAT_BITS, JOURNALS
from analysis.page.parts import Column, Lines, Part, Rows, Section
from analysis.report import wording
from analysis.report.results import Results

COLUMNS = (
    Column("name"),
    Column("method"),
    Column("bits"),
    Column("seed", True),
    Column("top-1 %", True),
    Column("drop", True),
    Column("MB", True),
    Column("state"),
    Column("attempts", True),
    Column("commit"),
    Column("device"),
)
STATES = ("done", "failed", "running", "stopped", "pending")


def section(results: Results, page: Path, pages: Mapping[str, str]) -> Section:
    """All runs as seen from the file `page`; `pages` are their pages in MLflow by key."""
    rows = [
        _row(row, _folder(results.runs, row["key"], page) if results.source == JOURNALS else "", pages)
        for row in results.marked.to_dict("records")
    ]
    data = {"columns": [column.title for column in COLUMNS], "rows": rows}
    methods = list(dict.fromkeys(results.marked["method"]))
    states = [state for state in STATES if (results.marked["state"] == state).any()]
    caption = "Every run of the sweep, in the order of its plan until sorted"
    parts: list[Part] = [
        Lines(
            [
                "A heading sorts by its column. Bits: of weights / of activations. A name leads to the run's folder."
            ]
        ),
        Rows(caption, COLUMNS, data, methods, states),
    ]
    return Section("runs", "All runs", parts)


def _row(row: Mapping[str, Any], folder: str, pages: Mapping[str, str]) -> dict[str, Any]:
    """Each cell is its text and what it is sorted by, where that is another value; null sorts last."""
    name, method, state = str(row["name"]), str(row["method"]), row["state"]
    widths = [row["weight_bits"], row["act_bits"]]
    both = "float" if widths == [FLOAT_BITS] * 2 else " / ".join(map(wording.bits, widths))
    commit = (
        str(row["commit"])[:10] + (" + changes" if row["dirty"] is True else "") if row["commit"] else None
    )
    device = str(row["device"]) if row["device"] else None
    cells: list[list[Any]] = [
        [name],
        [method],
        [both, widths[0] * 100 + widths[1]],
        [str(row["seed"]), int(row["seed"])],
        _number(row["top1"], ".2f"),
        _number(row["drop"] if method != "float" else math.nan, ".2f"),
        _number(row["model_size_mb"], ".3g"),
        [state],
        [str(row["attempts"]), int(row["attempts"])],
        [commit] if commit else ["", None],
        [device] if device else ["", None],
    ]
    whole = {"key": str(row["key"]), "cells": cells, "error": row["error"], "folder": folder}
    whole["mlflow"] = pages.get(row["key"])
    return {name: value for name, value in whole.items() if value}


def _number(value: float, layout: str) -> list[Any]:
    return ["", None] if not math.isfinite(value) else [wording.number(value, layout), value]


def _folder(runs: Path, key: str, page: Path) -> str:
    """The link from `page` to a run's folder where both lie in the folder that holds the runs, so that they can be
    moved together; empty elsewhere, and for a run without a folder."""
    runs, page = runs.resolve(), page.resolve()
    if runs.parent == Path(runs.anchor) or not page.is_relative_to(runs.parent) or not (runs / key).is_dir():
        return ""
    return quote(Path(os.path.relpath(runs / key, page.parent)).as_posix()) + "/"
