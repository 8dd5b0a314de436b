"""What a runs folder knows: the sweeps that were planned there and how far each stage is."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from suite import events
from suite.checkpoint import write_json
from suite.methods import find as find_methods
from suite.recipe import (
    FORMAT,
    Calibration,
    Dataset,
    Network,
    Precision,
    Pretrained,
    Recipe,
    Sgd,
    Stage,
    Training,
    plan,
)
from suite.values import SuiteError, to_json, type_name

VALUES: tuple[type, ...] = (Dataset, Network, Precision, Sgd, Calibration, Training, Pretrained, Recipe)

State = Literal["done", "running", "failed", "stopped", "queued", "pending"]


@dataclass(frozen=True)
class Standing:
    """How far a stage is. "stopped" has begun, but no process runs it any more and it told no error; "queued" waits in
    a cluster's queue, which `job` tells of."""

    stage: Stage
    state: State
    outcome: dict[str, Any] | None
    journal: list[dict[str, Any]]
    age_seconds: float | None
    """Since the last sign of life: an event, or progress that was told. None before the first."""
    failure: dict[str, Any] = field(default_factory=dict)
    """The event that tells why it failed; empty in any other state."""
    job: str = ""
    mlflow: str = ""
    """How far MLflow is; empty where it was never synced."""
    folder: Path = Path()
    """The run directory."""
    damaged: int = 0
    """Lines of its journal that are not what was written."""

    @property
    def error(self) -> str:
        """The first line of the last attempt's error, or nothing."""
        return str(self.failure.get("error", ""))

    @property
    def cause(self) -> str:
        """What that error is of: "node", "memory", "disk", "code", "diverged", ...; or nothing."""
        return str(self.failure.get("cause", ""))

    @property
    def top1(self) -> float | None:
        """Percent of the test split, the outcome's or that of the last epoch evaluated."""
        if self.outcome:
            return float(self.outcome["top1"])
        found, _ = events.metrics(self.journal)
        return next((event["values"]["top1"] for event in reversed(found) if "top1" in event["values"]), None)

    @property
    def epochs(self) -> str:
        """`3/30` of one that trains: epochs done, of how many."""
        if not self.stage.trains_by or not self.journal:
            return ""
        found, _ = events.metrics(self.journal)
        return f"{found[-1]['step'] if found else 0}/{self.stage.trains_by.epochs}"


def standing(stage: Stage, runs: Path) -> Standing:
    """Read how far `stage` is. Raises SuiteError for a run directory of another version."""
    folder = runs / stage.key
    (journal, damaged), outcome = events.examine(folder), events.outcome(folder)
    state: State = "pending"
    if outcome is not None:
        state = "done"
    elif events.locked(folder):
        state = "running"
    elif journal:
        state = "failed" if journal[-1]["event"] == "failed" else "stopped"
    failure = journal[-1] if state == "failed" else {}
    signs = [float(journal[-1]["time"])] if journal else []
    with suppress(OSError):
        signs.append((folder / "progress.json").stat().st_mtime)
    age = time.time() - max(signs) if signs else None
    return Standing(stage, state, outcome, journal, age, failure, folder=folder.resolve(), damaged=damaged)


def tracked(standings: Sequence[Standing], runs: Path, sweep: str) -> list[Standing]:
    """Each standing with how far MLflow was with it at the last sync."""
    synced = _last_sync(runs, sweep).get("positions")
    if synced is None:
        return list(standings)
    found = []
    for now in standings:
        behind = len(now.journal) - sum(event["seq"] <= synced.get(now.stage.key, 0) for event in now.journal)
        words = f"{behind} events behind" if behind else "up to date"
        found.append(replace(now, mlflow=words if now.journal else ""))
    return found


def note_synced(runs: Path, sweep: str, positions: dict[str, int], pages: dict[str, str]) -> None:
    """Record up to which event of each journal, by key, MLflow has it, and links to its pages by what they show."""
    _synced(runs, sweep).parent.mkdir(parents=True, exist_ok=True)
    write_json({"positions": positions, "pages": pages}, _synced(runs, sweep))


def mlflow_pages(runs: Path, sweep: str) -> dict[str, str]:
    """The links that the last sync noted; none where it had no server."""
    return dict(_last_sync(runs, sweep).get("pages", {}))


def _last_sync(runs: Path, sweep: str) -> dict[str, Any]:
    try:
        return dict(json.loads(_synced(runs, sweep).read_text()))
    except (OSError, ValueError):
        return {}


def _synced(runs: Path, sweep: str) -> Path:
    return runs / "sweeps" / f"{sweep}.mlflow"


def save_sweep(
    runs: Path, name: str, options: dict[str, Any], stages: Sequence[Stage], about: str = ""
) -> None:
    """Record what a sweep consists of, for `run`, `status`, the tracking and the analysis.

    `stages` are in plan order; `about` is what the sweep asks, in words. The record is replaced whole. Raises
    SuiteError for a name that is no file's name, and for a stage that its record would not bring back.
    """
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise SuiteError(f"sweep name {name!r} is unusable; use letters, digits, '-', '_' and '.'")
    for stage in stages:
        _check_found_by_workers(stage)
    rows = [
        {
            "key": stage.key,
            "name": stage.name,
            "kind": type(stage).__name__,
            "params": stage.params,
            "needs": [needed.key for needed in stage.needs],
            "stage": to_json(stage),
        }
        for stage in stages
    ]
    (runs / "sweeps").mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "sweep": name, "about": about, "options": options, "stages": rows}
    write_json(content, runs / "sweeps" / f"{name}.json")


def _check_found_by_workers(stage: Stage) -> None:
    kinds = {type(value) for value in (stage, getattr(stage, "method", None)) if value is not None}
    strange = [kind for kind in kinds if kind not in (*VALUES, *find_methods().values())]
    if strange:
        raise SuiteError(
            f"{stage.name} uses {strange[0].__qualname__}, which workers cannot find; put a method into a file of its "
            f"own in suite/methods/, named as its class"
        )


def load_sweep(runs: Path, name: str) -> tuple[Stage, ...]:
    """The stages of a sweep that was launched in this runs folder, in plan order."""
    file = runs / "sweeps" / f"{name}.json"
    if not file.is_file():
        there = ", ".join(sorted(f.stem for f in file.parent.glob("*.json"))) or "none"
        raise SuiteError(f"no sweep {name!r} was planned or launched in {runs}; there is {there}")
    return tuple(_stage(row) for row in _rows(file))


def about(runs: Path, name: str) -> str:
    """What a sweep asks, as it was recorded; nothing where it was not."""
    try:
        return str(json.loads((runs / "sweeps" / f"{name}.json").read_text()).get("about", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def from_json(data: Any) -> Any:
    """The value that `to_json` wrote: classes of `recipe` and of `methods`, and no others.

    Raises SuiteError for an unknown type or field, and for a method of another revision.
    """
    if isinstance(data, list):
        return tuple(from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    known = {type_name(kind): kind for kind in (*VALUES, *find_methods().values())}
    kind = known.get(str(data.get("type")))
    if kind is None:
        raise SuiteError(
            f"a stage holds the unknown type {data.get('type')!r}; it was written by another version"
        )
    if data.get("revision") != getattr(kind, "revision", None):
        raise SuiteError(
            f"{data['type']} has revision {getattr(kind, 'revision', None)} here, but the record says "
            f"{data.get('revision')}; plan the sweep again"
        )
    fields = {name: from_json(item) for name, item in data.items() if name not in ("type", "revision")}
    try:
        return kind(**fields)
    except (TypeError, AttributeError) as error:  # of a missing field, or of a value of another kind
        raise SuiteError(f"a stage of another version: {error}; plan the sweep again") from None


def find_stages(runs: Path, keys: Sequence[str]) -> list[Stage]:
    """The stages whose keys begin with `keys`, one each, from all sweeps of this runs folder.

    A record that cannot be read is an error only where a key is in no other.
    """
    rows: dict[str, dict[str, Any]] = {}
    unreadable: list[SuiteError] = []
    for file in sorted((runs / "sweeps").glob("*.json")):
        try:
            rows |= {row["key"]: row for row in _rows(file)}
        except SuiteError as error:
            unreadable.append(error)
    found = []
    for key in keys:
        matches = [row for name, row in rows.items() if name.startswith(key)]
        if not matches and unreadable:
            raise unreadable[0]
        if len(matches) != 1:
            problem = f"{len(matches)} stages begin with" if matches else "no stage has"
            raise SuiteError(
                f"{problem} key {key!r} in {runs}; `python -m suite plan SWEEP` shows the keys and records them"
            )
        found.append(_stage(matches[0]))
    return found


def _stage(row: dict[str, Any]) -> Stage:
    stage = from_json(row["stage"])
    if not isinstance(stage, Stage) or stage.key != row["key"]:
        raise SuiteError(f"the record of {row['key']!r} is not that of its stage; plan the sweep again")
    return stage


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_text())
        version, rows = content.get("format"), content["stages"]
        if not all(isinstance(row["key"], str) and isinstance(row["stage"], dict) for row in rows):
            raise ValueError
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise SuiteError(f"{file} is not a sweep's record; remove it and launch the sweep again") from None
    if version != FORMAT:
        raise SuiteError(
            f"{file} has format {version}, this version reads {FORMAT}; move the folder away or use --runs"
        )
    return list(rows)


def matching(stages: Sequence[Stage], pattern: str | None) -> tuple[Stage, ...]:
    """The stages whose name holds `pattern` (with * and ? as wildcards) or whose key begins with it, and all
    that they start from. Raises SuiteError where nothing matches."""
    return tuple(stages) if pattern is None else plan(only(stages, pattern))


def only(stages: Sequence[Stage], pattern: str) -> list[Stage]:
    """Those stages themselves, without what they start from."""
    wanted = f"*{pattern.lower()}*"
    chosen = [s for s in stages if fnmatch(s.name.lower(), wanted) or s.key.startswith(pattern)]
    if not chosen:
        shown = "\n  ".join(sorted({stage.name for stage in stages})[:40])
        raise SuiteError(f"no stage matches --only {pattern!r}; there are\n  {shown}")
    return chosen
