"""Journals into MLflow: idempotent, resumable, never in a run's way. The only file that imports mlflow.

One experiment a sweep, one flat run a stage. A run is found by its `stage_key` tag; one syncer at a time holds a
lock, since looking for a tag and then creating a run is not atomic. A tag remembers how far the journal was read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from suite.recipe import Recipe, Stage
from suite.records import Standing, standing
from suite.views import LEADERBOARD_KEY, leaderboard

STATUS = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "running": "RUNNING"}


def uri(runs: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.resolve()}/mlflow.db"


@contextmanager
def _only_one(runs: Path) -> Iterator[None]:
    with (runs / "mlflow.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _client(runs: Path) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri(runs))


def prepare(runs: Path) -> None:
    """Make the embedded database, once, in one process: two that open a fresh one at once break it for good."""
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / "mlflow.db"
    if uri(runs) != f"sqlite:///{file.resolve()}" or file.exists():
        return
    with _only_one(runs):
        if not file.exists():
            _client(runs).search_experiments(max_results=1)
            with sqlite3.connect(file) as database:
                database.execute("pragma journal_mode=wal")


def sync(sweep: str, stages: Sequence[Stage], runs: Path, report: Path | None = None) -> str:
    """Bring MLflow up to date with the journals of `stages` and the files of `report`; safe to repeat.

    Returns the experiment's id.
    """
    prepare(runs)
    with _only_one(runs):
        client = _client(runs)
        experiment = _experiment(client, sweep, runs)
        known = _runs_by_key(client, experiment)
        for stage in stages:
            now = standing(stage, runs)
            if now.journal:
                _sync_run(client, experiment, known.get(stage.key), now)
        if report is not None and report.is_dir():
            _sync_report(client, experiment, known.get(f"report {sweep}"), sweep, report)
    return experiment


def _experiment(client: Any, sweep: str, runs: Path) -> str:
    found = client.get_experiment_by_name(sweep)
    if found is not None:
        return str(found.experiment_id)
    embedded = uri(runs).startswith("sqlite:")
    place = (runs.resolve() / "mlflow-artifacts" / sweep).as_uri() if embedded else None
    experiment = str(client.create_experiment(sweep, artifact_location=place))
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{LEADERBOARD_KEY}", leaderboard())
    note = f"Sweep `{sweep}`: one run a stage. Compare `top1` over `weight_bits`, grouped by `method`."
    client.set_experiment_tag(experiment, "mlflow.note.content", note)
    return experiment


def _runs_by_key(client: Any, experiment: str) -> dict[str, Any]:
    found, token = {}, None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        found |= {run.data.tags.get("stage_key", ""): run for run in page}
        token = page.token
        if not token:
            return found


def _sync_run(client: Any, experiment: str, run: Any, now: Standing) -> None:
    from mlflow.entities import Metric, Param, RunTag

    stage, journal, last = now.stage, now.journal, now.journal[-1]
    cursor = json.loads(run.data.tags.get("synced", "{}")) if run else {}
    position = {"seq": last["seq"], "state": now.state}
    if {name: cursor.get(name) for name in position} == position:
        return
    if run is None:
        tags = {"stage_key": stage.key, "role": _role(stage), "mlflow.source.type": "JOB"}
        tags["mlflow.source.name"] = f"python -m suite run {stage.key}"
        start = int(journal[0]["time"] * 1000)
        run = client.create_run(experiment, start_time=start, tags=tags, run_name=stage.name)
    # A repeated attempt goes through the same steps again; what MLflow has of a step stays as it is.
    written = cursor.get("step", -1)
    new = [e for e in journal if e["event"] == "metrics" and e["seq"] > cursor.get("seq", 0)]
    attempt = last["attempt"]
    points = {
        (name, event["step"]): Metric(name, value, int(event["time"] * 1000), event["step"])
        for event in new
        if event["attempt"] == attempt and event["step"] > written
        for name, value in event["values"].items()
        if value is not None
    }
    started = next(event for event in reversed(journal) if event["event"] == "started")
    tags = {"host": started["host"], "device": started["device"], "attempt": str(attempt)}
    tags |= {"mlflow.source.git.commit": started["commit"], "error": now.error}
    if now.outcome and now.outcome.get("loss") is None:
        tags["diverged"] = "the evaluation gave NaN"
    position["step"] = max([written, *(step for _, step in points)])
    params = [Param(name, str(value)) for name, value in stage.params.items()] if not cursor else []
    tags["synced"] = json.dumps(position)
    listed = [RunTag(name, value) for name, value in tags.items() if value]
    client.log_batch(run.info.run_id, list(points.values()), params, listed)
    status = STATUS[now.state]
    if status == "RUNNING":
        client.update_run(run.info.run_id, status)
    else:
        client.set_terminated(run.info.run_id, status, int(last["time"] * 1000))


def _role(stage: Stage) -> str:
    return "recipe" if isinstance(stage, Recipe) else type(stage).__name__.lower()


def _sync_report(client: Any, experiment: str, run: Any, sweep: str, folder: Path) -> None:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    digest = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()
    if run is not None and run.data.tags.get("report_sha256") == digest:
        return
    if run is None:
        tags = {"stage_key": f"report {sweep}", "role": "report", "mlflow.source.type": "JOB"}
        tags["mlflow.source.name"] = f"python -m analysis {sweep}"
        run = client.create_run(experiment, tags=tags, run_name=f"report {sweep}")
    for file in files:
        client.log_artifact(run.info.run_id, str(file))
    client.set_tag(run.info.run_id, "report_sha256", digest)
    client.set_terminated(run.info.run_id, "FINISHED")


class Follower(threading.Thread):
    """Syncs every few seconds while a launcher works; whatever goes wrong with MLflow is told at the end."""

    def __init__(self, sweep: str, stages: Sequence[Stage], runs: Path, every_seconds: float = 5) -> None:
        super().__init__(daemon=True)
        self.sweep, self.stages, self.runs, self.every_seconds = sweep, stages, runs, every_seconds
        self._done = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Sync until `finish` is called."""
        while not self._done.wait(self.every_seconds):
            self._once()

    def finish(self) -> None:
        """Sync a last time, and return."""
        self._done.set()
        self.join()
        self._once()

    def _once(self) -> None:
        try:
            self.error = None
            sync(self.sweep, self.stages, self.runs)
        except Exception as error:
            self.error = error


def how_to_open(experiment: str, runs: Path) -> str:
    """The command that opens MLflow on these runs, where it is embedded, and the page to look at."""
    view = f"runs?workflowType=machine_learning&compareRunsMode=TABLE&viewStateShareKey={LEADERBOARD_KEY}"
    server = uri(runs)
    if server.startswith("http"):
        return f"{server.rstrip('/')}/#/experiments/{experiment}/{view}"
    mlflow = Path(sys.executable).with_name("mlflow")
    shown = os.path.relpath(mlflow) if mlflow.is_relative_to(Path.cwd()) else str(mlflow)
    command = f"{shown} server --workers 1 --port 5000 --backend-store-uri {quote(server, safe=':/')}"
    settings = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"
    return f"{settings} {command}\nhttp://127.0.0.1:5000/#/experiments/{experiment}/{view}"
