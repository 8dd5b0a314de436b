"""What MLflow has of a run, kept up to date by what is written to it, so that it is asked for once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.track.run_contents import Point
from suite.track.tags import OLDER, SYNCED

BATCH = 800
"""Metric points in one request: with the parameters and tags of a run still below MLflow's 1000 items."""


@dataclass
class MlflowRun:
    """A run as MLflow answered, with what was written to it since. Times are milliseconds since 1970."""

    run_id: str
    name: str
    artifact_uri: str
    start_time: int | None
    end_time: int | None
    status: str
    tags: dict[str, str]
    params: dict[str, str]

    @property
    def synced(self) -> dict[str, Any]:
        """How far the journal, the files and the system metrics of the run were read, as its tag says."""
        return dict(json.loads(self.tags.get(SYNCED) or self.tags.get(OLDER[SYNCED], "{}")))


def created(client: Any, experiment: str, name: str, tags: Mapping[str, str], **times: int) -> MlflowRun:
    """A new run in the experiment."""
    return _run_of(client.create_run(experiment, tags=tags, run_name=name, **times))


def _run_of(run: Any) -> MlflowRun:
    info, data = run.info, run.data
    return MlflowRun(
        info.run_id,
        info.run_name,
        info.artifact_uri,
        info.start_time,
        info.end_time,
        info.status,
        dict(data.tags),
        dict(data.params),
    )


def runs_by_key(client: Any, experiment: str) -> dict[str, MlflowRun]:
    """The runs that are there, by the tag `stage_key`. Of two of one key one is deleted: a client that missed the
    answer to its request repeats it, and makes a second."""
    page = client.search_runs([experiment], max_results=1000)
    listed = list(page)
    while page.token:
        page = client.search_runs([experiment], max_results=1000, page_token=page.token)
        listed += page
    found: dict[str, MlflowRun] = {}
    for run in sorted(map(_run_of, listed), key=lambda run: bool(run.synced), reverse=True):
        key = run.tags.get("stage_key")
        if key is not None and found.setdefault(key, run) is not run:
            client.delete_run(run.run_id)
    return found


def log(
    client: Any,
    run: MlflowRun,
    tags: Mapping[str, str],
    points: Sequence[Point] = (),
    params: Mapping[str, str] | None = None,
) -> None:
    """Log points, parameters and those tags in which the run differs; the tags with the last points."""
    from mlflow.entities import Metric, Param, RunTag

    params = params or {}
    changed = {name: value for name, value in tags.items() if run.tags.get(name, "") != value}
    metrics = [Metric(*point) for point in points]
    while len(metrics) > BATCH:
        client.log_batch(run.run_id, metrics[:BATCH])
        metrics = metrics[BATCH:]
    if metrics or params or changed:
        given = [Param(*item) for item in params.items()], [RunTag(*item) for item in changed.items()]
        client.log_batch(run.run_id, metrics, *given)
    run.params |= params
    run.tags |= changed


def set_status(client: Any, run: MlflowRun, status: str, end_time: int) -> None:
    """Set the status of a run; of one that has ended also the time, in milliseconds since 1970."""
    if status != "RUNNING":
        client.set_terminated(run.run_id, status, end_time)
        run.end_time = end_time
    elif run.status != status:
        client.update_run(run.run_id, status)
    run.status = status
