"""MLflow's copy of the runs as the same table: `suite report SWEEP --from mlflow`.

What the table needs beside a run's metrics, `suite sync` has put there: the plan as tags of the experiment, in parts,
and what stage.json and outcome.json hold as the tag RECORD of a run. Only per-image results are not there.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.read.curves import METRICS, Curve, Journal, curve
from analysis.read.plan import stages_of
from analysis.read.run_folders import row, table
from suite.record.secrets import safe_line, without_secrets

PLAN = "mlflow.suite.plan"
RECORD, SYNCED = ("mlflow.suite.record", "record"), ("mlflow.suite.synced", "synced")
"""The names of a tag, that of an older `sync` last."""
STATES = {"FINISHED": "done", "FAILED": "failed", "KILLED": "stopped", "RUNNING": "running"}
PAGE = 1000
"""Runs in one answer of the server."""
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def load(runs: Path, sweep: str) -> tuple[pd.DataFrame, dict[str, Curve]]:
    """The table and the curves of `run_folders.load`, from MLFLOW_TRACKING_URI or else the database in `runs`.

    Raises AnalysisError where there is no such experiment, where it cannot be reached, and where it was synced by a
    version of `sync` that did not record all this.
    """
    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs / 'mlflow.db').resolve()}"
    if where.startswith("sqlite:///") and not Path(where.removeprefix("sqlite:///")).exists():
        raise AnalysisError(
            f"there is no MLflow at {where}; run `suite sync {sweep}` first, give the folder of the runs "
            "with --runs, or name a server in MLFLOW_TRACKING_URI"
        )
    shown = without_secrets(where)
    with _explained(shown):
        from mlflow.tracking import MlflowClient

        client = MlflowClient(where)
        experiment = client.get_experiment_by_name(sweep)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            raise AnalysisError(f"MLflow at {shown} has no experiment {sweep!r}; run `suite sync {sweep}`")
        stages = stages_of(_plan(experiment.tags, sweep), f"the plan of experiment {sweep!r} in MLflow")
        found = _by_key(client, experiment.experiment_id)
        rows, curves = [], {}
        for stage in stages:
            run = found.get(stage["key"])
            journal = _journal(client, run, sweep)
            if journal.curve is not None:
                curves[stage["key"]] = journal.curve
            state = STATES[run.info.status] if run else "pending"
            rows.append(row(stage, journal, state, partial(_left, run)))
    return table(stages, rows), curves


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """What goes wrong in MLflow as an AnalysisError in one line."""
    for name, value in SETTINGS.items():  # before the import, which reads some of them
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    except ModuleNotFoundError as error:
        raise AnalysisError(
            f"MLflow at {where} needs the Python package {error.name}, which is not installed; pip install it, or "
            f"leave out --from mlflow"
        ) from None
    except (MlflowException, SQLAlchemyError) as error:
        first = safe_line(error)
        raise AnalysisError(
            f"MLflow at {where} failed: {first}; check that it runs, or leave out --from mlflow"
        ) from None


def _plan(tags: Mapping[str, str], sweep: str) -> dict[str, Any]:
    count = tags.get(f"{PLAN}.0", "").partition(" ")[0]
    try:
        packed = "".join(tags[f"{PLAN}.{part}"] for part in range(int(count)))
        plan = json.loads(zlib.decompress(base64.b64decode(packed.split(" ")[-1])))
        return dict(plan)
    except (ValueError, KeyError, TypeError, zlib.error, RecursionError):
        raise AnalysisError(
            f"experiment {sweep!r} in MLflow has no whole plan; run `suite sync {sweep}` again"
        ) from None


def _by_key(client: Any, experiment: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    page = client.search_runs([experiment], max_results=PAGE)
    listed = list(page)
    while page.token:
        page = client.search_runs([experiment], max_results=PAGE, page_token=page.token)
        listed += page
    # Of two runs of a key, made by a request that was repeated, `sync` keeps the one that it has filled.
    for run in sorted(listed, key=lambda run: _tag(run, SYNCED) is not None):
        found[run.data.tags.get("stage_key")] = run
    return found


def _journal(client: Any, run: Any, sweep: str) -> Journal:
    """What `read_journal` would give for the run, as far as the table needs it."""
    if run is None:
        return Journal()
    if (text := _tag(run, RECORD)) is None:
        raise AnalysisError(
            f"run {run.info.run_name!r} in MLflow has no tag {RECORD[0]}; run `suite sync {sweep}` again"
        )
    record = _record(run, text)
    points: dict[int, dict[str, Any]] = {}
    if "train_loss" in run.data.metrics:
        for name in METRICS:
            for point in client.get_metric_history(run.info.run_id, name):
                points.setdefault(point.step, {})[name] = point.value
    return Journal(
        attempts=record["attempts"],
        last={"error": run.data.tags.get("error")},
        run_seconds=record["run_seconds"],
        data=record["data"],
        curve=curve(points),
    )


def _record(run: Any, text: str) -> dict[str, Any]:
    """What the tag RECORD holds, with the number of attempts. Raises AnalysisError for what no sync wrote."""
    try:
        content = json.loads(text)
        attempts, seconds = int(run.data.tags["attempt"]), content["run_seconds"]
        usable = isinstance(content["data"], dict) and type(seconds) in (int, float) and 0 <= attempts < 2**63
        usable &= all(isinstance(content[name], dict | NoneType) for name in ("stage", "outcome"))
    except (ValueError, KeyError, TypeError, RecursionError):
        usable = False
    if not usable:
        raise AnalysisError(
            f"run {run.info.run_id} in MLflow has a tag {RECORD[0]} that no sync wrote; delete the run and sync again"
        )
    return {**content, "attempts": attempts}


def _tag(run: Any, names: Sequence[str]) -> str | None:
    """The first of these tags that the run has."""
    return next((run.data.tags[name] for name in names if name in run.data.tags), None)


def _left(run: Any, name: str) -> tuple[str, dict[str, Any] | None]:
    if run is None:
        return "", None
    content: dict[str, Any] | None = _record(run, _tag(run, RECORD) or "{}")[name]
    return f"MLflow's run {run.info.run_id}", content
