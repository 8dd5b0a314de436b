"""Run directories become one table: a row a stage, in the order of the plan, holes included.

What is read: `RUNS/sweeps/NAME.json` (the plan) and, for each of its stages, `RUNS/KEY/stage.json`,
`events.jsonl` and `outcome.json`. A run that cannot be read keeps its row and says why in `problem`.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import journal
from analysis.errors import AnalysisError
from analysis.journal import Curve

FORMAT = 1
REQUIRED = ("model", "dataset", "seed", "method", "weight_bits", "act_bits")
OUTCOME = {
    "top1": "top1",
    "top5": "top5",
    "loss": "loss",
    "images": "test_images",
    "images_per_s": "images_per_s",
    "model_size_mb": "model_size_mb",
    "seconds": "seconds",
}
ORIGIN = ("commit", "dirty", "device", "host", "versions")
JOURNAL = ("run_seconds", "train_sha256", "test_sha256")
OWN = (
    *("key", "name", "kind", "start", "state", "attempts", "error", "problem"),
    *(*OUTCOME.values(), *ORIGIN, *JOURNAL),
)
DERIVED = ("configuration", "label", "drop")


def read(runs: Path, sweep: str) -> pd.DataFrame:
    """The table of `load` alone."""
    return load(runs, sweep)[0]


def load(runs: Path, sweep: str) -> tuple[pd.DataFrame, dict[str, Curve]]:
    """One row a stage of `sweep`, in plan order, and the training curves by key. Each journal is read once.

    Columns: `OWN`, then every parameter of any stage (None where a stage has it not). `state` is `done`, `failed`,
    `running`, `stopped` (begun, and no process of this machine holds its lock) or `pending`; top1 and top5 are
    percents, NaN unless done; `start` is the key of the stage it was made from; `error` is the first line of the last
    failure; `run_seconds` is what all attempts took together; `train_sha256` and `test_sha256` are the checksums of
    the data that was read (None where it was not, or not told); `problem` says why a run directory could not be used,
    its row is then `failed`. A parameter called like a column of `OWN` or `DERIVED` is prefixed with `param_`.

    Raises AnalysisError where there is no such sweep or its file cannot be used.
    """
    stages = _stages(runs, sweep)
    names = sorted({name for stage in stages for name in stage["params"]})
    rows, curves = [], {}
    for stage in stages:
        told = journal.read(runs / stage["key"] / "events.jsonl")
        if told.curve is not None:
            curves[stage["key"]] = told.curve
        rows.append(_row(runs, stage, told) | {_column(name): stage["params"].get(name) for name in names})
    table = pd.DataFrame(rows, columns=[*OWN, *map(_column, names)], dtype=object)
    for column in ("seed", "weight_bits", "act_bits", "attempts"):
        table[column] = table[column].astype("int64")
    for column in (*OUTCOME.values(), "run_seconds"):
        table[column] = table[column].astype("float64")
    return table, curves


def parameters(table: pd.DataFrame) -> list[str]:
    """The columns of a table made by `read` that are parameters of stages, sorted."""
    return sorted(column for column in table.columns if column not in OWN and column not in DERIVED)


def _column(name: str) -> str:
    return f"param_{name}" if name in OWN or name in DERIVED else name


def _stages(runs: Path, sweep: str) -> list[dict[str, Any]]:
    folder = runs / "sweeps"
    known = sorted(path.stem for path in folder.glob("*.json"))
    if not known:
        raise AnalysisError(f"{folder} holds no sweep; give the folder of the runs with --runs or SUITE_RUNS")
    if sweep not in known:
        raise AnalysisError(f"{folder} holds no sweep {sweep!r}; it holds {', '.join(known)}")
    path = folder / f"{sweep}.json"
    plan = _object(path, "plan the sweep again")
    if plan.get("format") != FORMAT:
        raise AnalysisError(
            f"{path} has format {plan.get('format')!r} and this analysis reads {FORMAT}; "
            "plan the sweep again or use the analysis of its commit"
        )
    stages = plan.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise AnalysisError(f"{path} lists no stages; plan the sweep again")
    for stage in stages:
        missing = [name for name in ("key", "name", "kind", "params", "needs") if name not in stage]
        missing += [f"params.{name}" for name in REQUIRED if name not in stage.get("params", {})]
        if missing:
            raise AnalysisError(
                f"{path}: stage {stage.get('name', '?')!r} lacks {', '.join(missing)}; plan the sweep again"
            )
    return stages


def _row(runs: Path, stage: Mapping[str, Any], told: journal.Journal) -> dict[str, Any]:
    row: dict[str, Any] = {name: None for name in OWN}
    row |= {name: stage[name] for name in ("key", "name", "kind")}
    row["start"] = next(iter(stage["needs"]), None)
    folder = runs / stage["key"]
    row |= {"attempts": told.attempts, "run_seconds": told.run_seconds, "state": _state(told.last, folder)}
    row |= {f"{split}_sha256": told.data.get(split) for split in ("train", "test")}
    if row["state"] == "failed":
        row["error"] = _first_line(told.last.get("error"))
    try:
        row |= _origin(folder)
        row |= _outcome(folder, stage["key"])
    except AnalysisError as problem:
        row |= {"state": "failed", "problem": str(problem), "error": _first_line(str(problem))}
    return row


def _state(last: Mapping[str, Any], folder: Path) -> str:
    if last.get("event") == "failed":
        return "failed"
    if _held(folder / "lock"):
        return "running"
    return "stopped" if last or (folder / "stage.json").exists() else "pending"


def _held(lock: Path) -> bool:
    """Whether a process of this machine holds the run's lock, as it does while it runs."""
    if not lock.exists():
        return False
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _origin(folder: Path) -> dict[str, Any]:
    path = folder / "stage.json"
    if not path.exists():
        return {}
    stage = _object(path, "remove its folder and run the stage again")
    if stage.get("format") != FORMAT:
        raise AnalysisError(
            f"{path} has format {stage.get('format')!r} and this analysis reads {FORMAT}; "
            "run the stage again or use the analysis of its commit"
        )
    versions = stage.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    return {name: stage.get(name) for name in ORIGIN} | {
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or None
    }


def _outcome(folder: Path, key: str) -> dict[str, Any]:
    path = folder / "outcome.json"
    if not path.exists():
        return {}
    remedy = "remove the file and run the stage again"
    outcome = _object(path, remedy)
    if outcome.get("key") != key:
        raise AnalysisError(f"{path} belongs to stage {outcome.get('key')!r}, not to {key!r}; {remedy}")
    values = {column: outcome.get(name) for name, column in OUTCOME.items()}
    for name, column in OUTCOME.items():
        value = values[column]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise AnalysisError(f"{path} has {name} {value!r}, which is no number; {remedy}")
    top1 = values["top1"]
    if top1 is None or not math.isfinite(top1) or not 0 <= top1 <= 100:
        raise AnalysisError(f"{path} has top1 {top1!r}, which is no percent; {remedy}")
    images = values["test_images"]
    if images is None or not 1 <= images < math.inf:
        raise AnalysisError(f"{path} has images {images!r}, which is no count of test images; {remedy}")
    return values | {"state": "done", "error": None}


def _object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise AnalysisError(f"{path} is not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise AnalysisError(f"{path} holds a {type(value).__name__}, not a JSON object; {remedy}")
    return value


def _first_line(text: Any) -> str | None:
    return str(text).strip().partition("\n")[0] if text else None
