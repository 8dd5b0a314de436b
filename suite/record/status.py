"""The status of a stage, read from its run directory."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from suite.recipe import (
    Stage,
)
from suite.record import lease
from suite.record.journal import counted_metrics, examine_events, read_outcome

State = Literal["done", "running", "failed", "stopped", "queued", "pending"]


@dataclass(frozen=True)
class Status:
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
        found, _ = counted_metrics(self.journal)
        return next((event["values"]["top1"] for event in reversed(found) if "top1" in event["values"]), None)

    @property
    def epochs(self) -> str:
        """`3/30` of one that trains: epochs done, of how many."""
        if not self.stage.trains_by or not self.journal:
            return ""
        found, _ = counted_metrics(self.journal)
        return f"{found[-1]['step'] if found else 0}/{self.stage.trains_by.epochs}"


def status_of(stage: Stage, runs: Path) -> Status:
    """Read how far `stage` is. Raises SuiteError for a run directory of another version."""
    folder = runs / stage.key
    (journal, damaged), outcome = examine_events(folder), read_outcome(folder)
    state: State = "pending"
    if outcome is not None:
        state = "done"
    elif lease.locked(folder):
        state = "running"
    elif journal:
        state = "failed" if journal[-1]["event"] == "failed" else "stopped"
    failure = journal[-1] if state == "failed" else {}
    signs = [float(journal[-1]["time"])] if journal else []
    with suppress(OSError):
        signs.append((folder / "progress.json").stat().st_mtime)
    age = time.time() - max(signs) if signs else None
    return Status(stage, state, outcome, journal, age, failure, folder=folder.resolve(), damaged=damaged)
