"""Run directories become one table: a row a stage, in the order of the plan, holes included.

What is read: `RUNS/sweeps/NAME.json` (the plan) and, for each of its stages, `RUNS/KEY/stage.json`,
`events.jsonl` and `outcome.json`. A run that cannot be read keeps its row, with the reason in `problem`.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from analysis.errors import AnalysisError
from analysis.read.budgets import with_widths
from analysis.read.curves import LARGEST, Curve, Journal, read_journal
from analysis.read.plan import FORMAT, REQUIRED, stages_of
from suite.record import files, lease
from suite.record.status import state_of
from suite.record.waiting import NoLocksError

Read: TypeAlias = Callable[[str], tuple[str, Mapping[str, Any] | None]]
"""Gives, for "stage" and "outcome", where it was read, in words, and the content; None where there is none."""

OUTCOME = {
    "top1": "top1",
    "top5": "top5",
    "loss": "loss",
    "images": "test_images",
    "images_per_s": "images_per_s",
    "model_size_mb": "model_size_mb",
    "seconds": "seconds",
    "start_top1": "start_top1",
}
ORIGIN = ("commit", "dirty", "device", "host", "versions")
JOURNAL = ("run_seconds", "train_sha256", "test_sha256", "best_epoch", "best_top1")
OWN = (
    *("key", "name", "kind", "start", "state", "attempts", "error", "problem"),
    *(*OUTCOME.values(), *ORIGIN, *JOURNAL),
)
DERIVED = ("configuration", "label", "drop")


def load(runs: Path, *names: str) -> tuple[pd.DataFrame, dict[str, Curve]]:
    """The table of the sweeps `names`, as `table` makes it, and the training curves by key. Each journal is read once.

    A run directory that cannot be used makes its row `failed`, with the reason in `problem`. Raises AnalysisError
    where there is no such sweep or its file cannot be used.
    """
    stages = list({stage["key"]: stage for sweep in names for stage in planned(runs, sweep)}.values())
    rows, curves = [], {}
    for stage in stages:
        folder = runs / stage["key"]
        held = _is_held(folder)
        journal = read_journal(folder)
        if journal.curve is not None:
            curves[stage["key"]] = journal.curve
        rows.append(row(stage, journal, state_of(False, held, journal.last), partial(_file, folder)))
    return table(stages, rows), curves


def _is_held(folder: Path) -> bool:
    """Whether a process of this machine runs the stage; of one that is done it is not asked."""
    try:
        return not (folder / "outcome.json").exists() and lease.locked(folder)
    except NoLocksError as error:
        raise AnalysisError(str(error)) from None


def table(stages: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a stage, in plan order.

    Columns: `OWN`, then every parameter of any stage (None where a stage has it not). `state` is `done`, `failed`,
    `running`, `stopped` (begun, and no process of this machine holds its lock) or `pending`; top1 and top5 are
    percents, NaN unless done; `start` is the key of the stage it was made from; `error` is the first line of the last
    failure; `run_seconds` is what all attempts took together; `train_sha256` and `test_sha256` are the checksums of
    the data that was read (None where it was not, or not recorded); `best_epoch` is where a training was best on the
    test images, with `best_top1`, which nothing else here is made of. A parameter called like a column of `OWN` or
    `DERIVED` is prefixed with `param_`.
    """
    names = sorted({name for stage in stages for name in stage["params"]})
    whole = [
        found | {_column(name): stage["params"].get(name) for name in names}
        for stage, found in zip(stages, map(dict, rows), strict=True)
    ]
    return _typed(pd.DataFrame(whole, columns=[*OWN, *map(_column, names)], dtype=object))


def from_csv(file: Path) -> pd.DataFrame:
    """The table that was written to a runs.csv, `DERIVED` included. Raises AnalysisError for another file."""
    remedy = "give the runs.csv of a report"
    try:
        read = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
        missing = [name for name in ("key", "state", "top1", *REQUIRED, *DERIVED) if name not in read]
        if missing or not len(read):
            raise AnalysisError(f"{file} has no {', '.join(missing) or 'row'}; {remedy}")
        for column in read:
            parse = _text if column in (*OWN, *DERIVED) and column != "dirty" else _plain
            read[column] = pd.Series([parse(text) for text in read[column]], dtype=object)
        older = [name for name in OWN if name not in read]  # columns that an older version did not write
        whole = pd.concat([read, pd.DataFrame(None, read.index, older, dtype=object)], axis=1)
        return _typed(whole).astype({"drop": "float64"})
    except (ValueError, TypeError, OverflowError) as error:
        raise AnalysisError(f"{file} is no table of runs: {error}; {remedy}") from error


def _text(text: str) -> str | None:
    return text or None


def _plain(text: str) -> Any:
    """What a parameter was before it was written: only what is written as it was read is no text.

    >>> [_plain(text) for text in ("", "True", "8", "0.1", "1e5", "007", "O2")]
    [None, True, 8, 0.1, '1e5', '007', 'O2']
    """
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with suppress(ValueError):
            if str(kind(text)) == text:
                return kind(text)
    return text or None


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    whole = {name: "int64" for name in ("seed", "attempts")}
    table["best_epoch"] = pd.to_numeric(table["best_epoch"]).astype("Int64")
    numbers = {name: "float64" for name in (*OUTCOME.values(), "run_seconds", "best_top1")}
    return with_widths(table).astype(whole | numbers)


def parameters(table: pd.DataFrame) -> list[str]:
    """The columns of a table made by `read` that are parameters of stages, sorted."""
    return sorted(column for column in table.columns if column not in OWN and column not in DERIVED)


def _column(name: str) -> str:
    return f"param_{name}" if name in OWN or name in DERIVED else name


def sweeps(runs: Path) -> list[str]:
    """The names of the sweeps planned in `runs`, sorted. Raises AnalysisError where there is none."""
    folder = runs / "sweeps"
    known = sorted(path.stem for path in folder.glob("*.json"))
    if not known:
        raise AnalysisError(f"{folder} holds no sweep; give the folder of the runs with --runs or SUITE_RUNS")
    return known


def planned(runs: Path, sweep: str) -> list[dict[str, Any]]:
    """The stages of `sweep`, in plan order. Raises AnalysisError where its file is missing or cannot be used."""
    known = sweeps(runs)
    if sweep not in known:
        raise AnalysisError(f"{runs / 'sweeps'} holds no sweep {sweep!r}; it holds {', '.join(known)}")
    path = runs / "sweeps" / f"{sweep}.json"
    return stages_of(_object(path, "plan the sweep again"), str(path))


def row(stage: Mapping[str, Any], journal: Journal, state: str, read: Read) -> dict[str, Any]:
    """The columns `OWN` of one stage. `state` is that of a run without an outcome; `read` gives what the run left as
    "stage" and as "outcome". What of it cannot be used becomes the row's `problem`."""
    row: dict[str, Any] = {name: None for name in OWN}
    row |= {name: stage[name] for name in ("key", "name", "kind")}
    row["start"] = next(iter(stage["needs"]), None)
    row |= {"attempts": journal.attempts, "run_seconds": journal.run_seconds, "state": state}
    row |= {f"{split}_sha256": journal.data.get(split) for split in ("train", "test")}
    row["best_epoch"], row["best_top1"] = journal.curve.best if journal.curve else (None, None)
    if row["state"] == "failed":
        row["error"] = _first_line(journal.last.get("error"))
    try:
        if journal.problem:
            raise AnalysisError(journal.problem)
        row |= _origin(*read("stage"))
        row |= _outcome(*read("outcome"), stage["key"])
    except AnalysisError as problem:
        row |= {"state": "failed", "problem": str(problem), "error": _first_line(str(problem))}
    return row


def _file(folder: Path, name: str) -> tuple[str, dict[str, Any] | None]:
    path = folder / f"{name}.json"
    what = "the file" if name == "outcome" else "its folder"
    try:
        return str(path), _object(path, f"remove {what} and run the stage again")
    except FileNotFoundError:
        return str(path), None


def _origin(where: str, stage: Mapping[str, Any] | None) -> dict[str, Any]:
    if stage is None:
        return {}
    if stage.get("format") != FORMAT:
        raise AnalysisError(
            f"{where} has format {stage.get('format')!r} and this analysis reads {FORMAT}; "
            "run the stage again or use the analysis of its commit"
        )
    for name in ORIGIN:
        value, kind = stage.get(name), {"dirty": bool, "versions": dict}.get(name, str)
        if value is not None and not isinstance(value, kind):
            raise AnalysisError(
                f"{where} has {name} {reprlib.repr(value)}, which is no {kind.__name__}; "
                "remove its folder and run the stage again"
            )
    versions = stage.get("versions")
    return {name: stage.get(name) for name in ORIGIN} | {
        "versions": ", ".join(f"{name} {version}" for name, version in sorted((versions or {}).items()))
        or None
    }


def _outcome(where: str, outcome: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    if outcome is None:
        return {}
    remedy = "remove the file and run the stage again"
    if outcome.get("key") != key:
        raise AnalysisError(
            f"{where} belongs to stage {reprlib.repr(outcome.get('key'))}, not to {key!r}; {remedy}"
        )
    values = {column: outcome.get(name) for name, column in OUTCOME.items()}
    for name, column in OUTCOME.items():
        value = values[column]
        if value is not None and not _is_number(value, name):
            raise AnalysisError(f"{where} has {name} {reprlib.repr(value)}, which is no number; {remedy}")
    for name in ("top1", "top5"):
        value = values[name]
        missing = name == "top5" and (value is None or math.isnan(value))
        if not missing and (value is None or not 0 <= value <= 100):
            raise AnalysisError(f"{where} has {name} {value!r}, which is no percent; {remedy}")
    images = values["test_images"]
    if type(images) is not int or images < 1:
        raise AnalysisError(f"{where} has images {images!r}, which is no count of test images; {remedy}")
    return values | {"state": "done", "error": None}


def _is_number(value: Any, name: str) -> bool:
    """NaN is allowed, and an infinite loss (the outputs of a network overflowed); a value far beyond any measurement
    is not, since no arithmetic could be done with it."""
    if type(value) not in (int, float):
        return False
    return value != value or abs(value) < LARGEST or (name == "loss" and abs(value) == math.inf)


def _object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(files.read_bytes(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AnalysisError(f"{path} {error}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise AnalysisError(f"{path} is not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise AnalysisError(f"{path} holds a {type(value).__name__}, not a JSON object; {remedy}")
    return value


def _first_line(text: Any) -> str | None:
    return text.strip().partition("\n")[0] or None if isinstance(text, str) else None
