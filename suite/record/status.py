"""The status of a stage, read from its run directory; of many, kept up to date from what was appended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from suite.recipe import Stage
from suite.record import lease
from suite.record.events import JournalReader, is_number, read_finished
from suite.record.files import printable
from suite.record.journal import counted_metrics, read_events, read_outcome

MANY = 100
"""From so many stages on that are not done, the runs folder is listed once, instead of asking for each of them."""

State = Literal["done", "running", "failed", "stopped", "queued", "pending"]


def state_of(done: bool, held: bool, last: Mapping[str, Any]) -> State:
    """The state of a stage by its run directory: whether it has an outcome, whether a process of this machine holds
    its lock, and the last event of its journal, empty before the first.

    A failed stage that has been started again is running, also before the first event of its new attempt.
    """
    if done:
        return "done"
    if held:
        return "running"
    if not last:
        return "pending"
    return "failed" if last["event"] == "failed" else "stopped"


@dataclass(frozen=True)
class Status:
    """How far a stage is. "stopped" has begun, but no process runs it any more and it recorded no error; "queued"
    waits in a cluster's queue, as `job` says."""

    stage: Stage
    state: State
    outcome: dict[str, Any] | None = None
    last: dict[str, Any] = field(default_factory=dict)
    """The last event of its journal; empty before the first."""
    alive_at: float | None = None
    """When it gave its last sign of life, an event or its progress, in seconds since 1970. None before the first."""
    failure: dict[str, Any] = field(default_factory=dict)
    """The event with the reason why it failed; empty in any other state."""
    job: str = ""
    mlflow: str = ""
    """How far MLflow is; empty where it was never synced."""
    folder: Path = Path()
    """The run directory."""
    damaged: int = 0
    """Lines of its journal that are not what was written."""
    events: list[dict[str, Any]] | None = None
    """What its journal held when it was read; None of a stage that is done, whose journal is read when it is asked
    for."""

    @cached_property
    def journal(self) -> list[dict[str, Any]]:
        """The events of its journal that count."""
        return read_events(self.folder) if self.events is None else self.events

    @property
    def age_seconds(self) -> float | None:
        """Since the last sign of life; None before the first."""
        return None if self.alive_at is None else time.time() - self.alive_at

    @property
    def error(self) -> str:
        """The first line of the last attempt's error, or nothing."""
        return printable(str(self.failure.get("error", "")))

    @property
    def cause(self) -> str:
        """What that error is of: "node", "memory", "disk", "code", "diverged", ...; or nothing."""
        return printable(str(self.failure.get("cause", "")))

    @property
    def top1(self) -> float | None:
        """Percent of the test split, the outcome's or that of the last epoch evaluated."""
        if self.outcome:
            return _number(self.outcome.get("top1"))
        found, _ = counted_metrics(self.journal)
        return next((event["values"]["top1"] for event in reversed(found) if "top1" in event["values"]), None)

    @property
    def below_start(self) -> float:
        """Points of top-1 that a training of a quantized network has lost against the same network before training,
        by its outcome or its last epoch evaluated; 0 where it lost none, or that is not known."""
        if self.outcome:
            start = _number(self.outcome.get("start_top1"))
        elif self.stage.trains_by and self.last:
            found, _ = counted_metrics(self.journal)
            tops = [event["values"].get("top1") for event in found if event["step"] == 0]
            start = next((top1 for top1 in tops if top1 is not None), None)
        else:
            return 0.0
        return 0.0 if start is None or self.top1 is None else max(0.0, start - self.top1)

    @property
    def epochs(self) -> str:
        """`3/30` of one that trains: epochs done, of how many."""
        if not self.stage.trains_by or not self.last:
            return ""
        epochs = self.stage.trains_by.epochs
        if self.outcome:
            return f"{epochs}/{epochs}"
        found, _ = counted_metrics(self.journal)
        return f"{found[-1]['step'] if found else 0}/{epochs}"


class Statuses:
    """The statuses of stages of one runs folder, kept up to date for whoever asks again and again.

    Of a journal only what was appended is read. A stage that is done does not change any more: nothing of it is
    read again. A status that has not changed is the same object as before.
    """

    def __init__(self, runs: Path) -> None:
        self.runs, self._resolved = runs, runs.resolve()
        self._done: set[str] = set()
        self._readers: dict[str, JournalReader] = {}
        self._known: dict[str, Status] = {}

    def of_all(self, stages: Iterable[Stage]) -> list[Status]:
        """The status of each of `stages`. Raises SuiteError for a run directory of another version."""
        stages, known = list(stages), self._known
        unfinished = [stage for stage in stages if stage.key not in self._done]
        if len(unfinished) < MANY:
            for stage in unfinished:
                self.of(stage)
        else:
            there = frozenset[str]()
            with suppress(FileNotFoundError):
                there = frozenset(os.listdir(self.runs))
            for stage in unfinished:
                if stage.key in there:
                    self.of(stage)
                elif stage.key not in known or known[stage.key].state != "pending":
                    self._readers.pop(stage.key, None)
                    known[stage.key] = Status(stage, "pending", folder=self._folder(stage), events=[])
        return [known[stage.key] for stage in stages]

    def of(self, stage: Stage) -> Status:
        """The status of `stage`. Raises SuiteError for a run directory of another version."""
        if stage.key not in self._done:
            before, now = self._known.get(stage.key), self._read(stage)
            self._known[stage.key] = before if before == now else now
            if now.state == "done":
                self._done.add(stage.key)
                self._readers.pop(stage.key, None)
        return self._known[stage.key]

    def _folder(self, stage: Stage) -> Path:
        folder = self._resolved / stage.key
        return folder.resolve() if folder.is_symlink() else folder

    def _read(self, stage: Stage) -> Status:
        folder = self.runs / stage.key
        if (outcome := read_outcome(folder)) is not None:
            return self._finished(stage, outcome)
        held = lease.locked(folder)  # before the journal: who lets go of the lock has written its last event
        reader = self._readers.setdefault(stage.key, JournalReader(folder))
        appended, last = reader.read_appended(), reader.last
        state = state_of(False, held, last)
        if state == "stopped" and (outcome := read_outcome(folder)) is not None:  # it has ended meanwhile
            return self._finished(stage, outcome)
        known = self._known.get(stage.key)
        return Status(
            stage,
            state,
            last=last,
            alive_at=_alive_at(folder, last),
            failure=last if state == "failed" else {},
            folder=known.folder if known else self._folder(stage),
            damaged=reader.damaged,
            events=known.events if known and not appended else reader.events,
        )

    def _finished(self, stage: Stage, outcome: dict[str, Any]) -> Status:
        folder = self._folder(stage)
        last, damaged = read_finished(folder)
        alive_at = float(last["time"]) if last else None
        return Status(stage, "done", outcome, last, alive_at=alive_at, folder=folder, damaged=damaged)


def _number(value: Any) -> float | None:
    """`value` where it is a number: somebody else may have written the outcome."""
    return float(value) if is_number(value) else None


def _alive_at(folder: Path, last: Mapping[str, Any]) -> float | None:
    signs = [float(last["time"])] if last else []
    with suppress(OSError):
        signs.append((folder / "progress.json").stat().st_mtime)
    return max(signs, default=None)
