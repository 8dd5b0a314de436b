"""Journals into MLflow: idempotent, resumable, never in a run's way.

One experiment a sweep, one flat run a stage. A run is found by its `stage_key` tag; one syncer at a time holds a
lock, since searching for a tag and then creating a run is not atomic. A run's tag SYNCED says how far its journal
was read; it is written after what it vouches for, and MLflow drops a point that it has, so a sync cut anywhere is
mended by the next.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.recipe import Stage
from suite.record.status import Status, Statuses
from suite.record.synced import last_syncer, note_synced, note_syncer
from suite.sweeps.stored import about
from suite.track import store
from suite.track.experiment import describe, description, open_experiment, show_best
from suite.track.mlflow_run import MlflowRun, runs_by_key
from suite.track.registry import best_by_width, register
from suite.track.report_run import sync_report
from suite.track.result import sync_verdicts
from suite.track.sync_run import FloatRun, sync_run
from suite.track.ui_view import pages
from suite.track.uploads import Uploads


def sync(
    sweep: str,
    stages: Sequence[Stage],
    runs: Path,
    report: Path | None = None,
    refused: dict[str, str] | None = None,
) -> str:
    """Bring MLflow up to date once: see `Syncer.sync`."""
    return Syncer(sweep, stages, runs).sync(report, refused)


@dataclass
class _Known:
    """What MLflow has, as far as it was asked or written to."""

    client: Any
    experiment: str
    plan: tuple[int, ...]
    """Which sweep record the experiment has; see `_identity`."""
    by_key: dict[str, MlflowRun]
    checked: dict[str, Status] = field(default_factory=dict)
    """The statuses that the last sync brought MLflow up to."""
    settled: dict[str, Status] = field(default_factory=dict)
    """Those of them of which nothing more is to come."""
    noted: tuple[dict[str, int], dict[str, str]] | None = None
    description: str = ""
    registered: dict[str, tuple[str, str]] | None = None
    """By widths, the stage key and the run id of the model versions."""


class Syncer:
    """Brings MLflow up to date with the journals of a sweep, again and again.

    MLflow is asked for its runs once; afterwards only what has changed is written. It is asked again after an error,
    after `ask_again`, and where another process has synced the sweep meanwhile.
    """

    def __init__(self, sweep: str, stages: Sequence[Stage], runs: Path) -> None:
        self.sweep, self.stages, self.runs = sweep, stages, runs
        self.seen = Statuses(runs)
        self._name = uuid.uuid4().hex
        self._known: _Known | None = None

    def ask_again(self) -> None:
        """Let the next sync ask MLflow for all its runs."""
        self._known = None

    def is_settled(self, statuses: Sequence[Status]) -> bool:
        """Whether a sync of these statuses has nothing to do."""
        if (known := self._known) is None:
            return False
        return all(not now.last or known.settled.get(now.stage.key) is now for now in statuses)

    def sync(self, report: Path | None = None, refused: dict[str, str] | None = None) -> str:
        """Bring MLflow up to date with the journals and the files of the folder `report`; safe to repeat.

        Returns the experiment's id, and in `refused` a line for each kind of thing that MLflow can be without and did
        not take. Raises AwayError where MLflow cannot be reached or takes no run, and SuiteError where the experiment
        is not this sweep's.
        """
        store.prepare(self.runs)
        try:
            with store.only_one(self.runs) as owner, store.explained(self.runs):
                lines, checked = {} if refused is None else refused, store.is_embedded(self.runs)
                known = self._known = self._asked(owner, lines)
                uploads = Uploads(known.client, known.experiment, lines, self.runs if checked else None)
                statuses = [now for now in self.seen.of_all(self.stages) if now.last]
                self._sync_runs(known, statuses, uploads)
                self._sync_rest(known, statuses, report, uploads)
        except BaseException:
            self._known = None
            raise
        return known.experiment

    def _asked(self, owner: str, lines: dict[str, str]) -> _Known:
        """What MLflow has, by its answer or by what is known since; `lines` get what is left out."""
        if last_syncer(self.runs, self.sweep) != self._name:
            note_syncer(self.runs, self.sweep, self._name)
            self._known = None
        plan = _identity(self.runs / "sweeps" / f"{self.sweep}.json")
        known = self._known
        if known is None or known.plan != plan:
            client = store.client(store.uri(self.runs))
            experiment = open_experiment(client, self.sweep, self.runs, owner, lines, self.stages)
            known = _Known(client, experiment, plan, runs_by_key(client, experiment))
        return known

    def _sync_runs(self, known: _Known, statuses: Sequence[Status], uploads: Uploads) -> None:
        by_key = {now.stage.key: now for now in statuses}
        for now in statuses:
            key = now.stage.key
            if known.settled.get(key) is now:
                continue
            start = _float_run(now, by_key, known.by_key)
            run = sync_run(known.client, known.experiment, known.by_key.get(key), now, start, uploads)
            known.by_key[key] = run
            # A run that goes on has samples of its node's load beside its journal, and one that has ended may still
            # write the last: it is settled when a further sync found it as it was. Refused files are tried again.
            has_files = run.synced["files"] == run.synced["seq"]
            if known.checked.get(key) is now and now.state != "running" and has_files:
                known.settled[key] = now
            known.checked[key] = now

    def _sync_rest(
        self, known: _Known, statuses: Sequence[Status], report: Path | None, uploads: Uploads
    ) -> None:
        """What is not of one run: the positions, the report, the description and the model versions."""
        client, experiment, sweep = known.client, known.experiment, self.sweep
        best, server = best_by_width(statuses), store.server()
        shown = {pair: (now.stage.key, known.by_key[now.stage.key].run_id) for pair, now in best.items()}
        ids = [run_id for _, run_id in shown.values()]
        positions = {now.stage.key: int(now.last["seq"]) for now in statuses}
        noted = positions, pages(server, experiment, ids) if server else {}
        if noted != known.noted:
            note_synced(self.runs, sweep, *noted)
            known.noted = noted
        reported = known.by_key.get(f"report {sweep}")
        if report is not None and report.is_dir():
            reported = sync_report(client, experiment, reported, sweep, report, uploads)
            known.by_key[f"report {sweep}"] = reported
            sync_verdicts(client, known.by_key, statuses, report)
        text = description(experiment, sweep, about(self.runs, sweep), reported)
        if text != known.description:
            describe(client, experiment, sweep, text)
            known.description = text
        if shown != known.registered:
            show_best(client, experiment, ids)
            with uploads.reported("registry", "to register the best recipes"):
                register(client, sweep, best, known.by_key, served=bool(server))
                known.registered = shown


def _float_run(now: Status, by_key: Mapping[str, Status], runs: Mapping[str, MlflowRun]) -> FloatRun:
    """The float stage of a recipe, the first that it needs."""
    if not now.stage.needs:
        return FloatRun()
    key = now.stage.needs[0].key
    return FloatRun(by_key.get(key), runs[key].run_id if key in runs else "")


def _identity(file: Path) -> tuple[int, ...]:
    """What differs between two files of one name; empty where there is none."""
    try:
        facts = file.stat()
    except FileNotFoundError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
