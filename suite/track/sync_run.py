"""One run directory into one MLflow run: what the run lacks of the journal, of the samples and of the small files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suite.recipe import Stage
from suite.record import system_metrics
from suite.record.journal import counted_metrics
from suite.record.method_colours import colour_and_marker
from suite.record.status import Status
from suite.track import run_contents
from suite.track.experiment import NOTE
from suite.track.mlflow_run import MlflowRun, created, log, set_status
from suite.track.result import configuration, drop_points, note
from suite.track.tags import OLDER, RECORD, SYNCED, record
from suite.track.uploads import Uploads

STATUS = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "running": "RUNNING"}

VERSION = 4
"""Of what is synced of a run, kept in its tag SYNCED. A run that an earlier version synced is synced again: before
1 it had no tag RECORD, before 2 a method's `momentum` replaced the training's, before 3 it had neither a drop nor a
description, before 4 a scheme's ends had the width of the rest, whatever it was."""


@dataclass(frozen=True)
class FloatRun:
    """The float stage that a recipe starts from, and its run's id in MLflow; empty where it has none yet."""

    status: Status | None = None
    run_id: str = ""


def sync_run(
    client: Any, experiment: str, run: MlflowRun | None, now: Status, start: FloatRun, uploads: Uploads
) -> MlflowRun:
    """Bring one run up to date; gives the run, which may be another than `run`."""
    cursor = run.synced if run else {}
    if run and is_complete(run, cursor, now):
        return run
    metrics, rewinds = counted_metrics(now.journal)
    began, status = int(now.journal[0]["time"] * 1000), STATUS[now.state]
    # MLflow cannot forget a point or change a parameter: a run that holds a wrong one gives way to a new run.
    if run and (
        run.start_time != began
        or cursor.get("rewinds", 0) != rewinds
        or (cursor.get("record") != VERSION and has_wrong_params(run, now.stage))
    ):
        client.delete_run(run.run_id)
        run, cursor = None, {}
    samples, reached = system_metrics.read(now.folder, cursor.get("system", {}))
    last = now.journal[-1]["seq"]
    position = {"seq": last, "rewinds": rewinds, "state": now.state, "system": reached}
    position |= {"record": VERSION, "files": last}
    if run and cursor == position and run.status == status:
        return run
    run = run or _created(client, experiment, now, began)
    after = cursor.get("seq", 0)
    if datasets := _datasets(now, after):
        client.log_inputs(run.run_id, datasets)
    files, had = run_contents.artifacts(now), cursor.get("files", 0)
    waiting = {name: file for name, (seq, file) in files.items() if seq > had and isinstance(file, bytes)}
    tags = run_contents.tags(now, files) | {RECORD: record(now)} | _for_people(experiment, run, now, start)
    if waiting:  # which of them are left out is known when the store has answered
        del tags["artifacts_left_out"]
    tags[SYNCED] = json.dumps(position | {"files": had} if waiting else position)
    # An earlier version knew fewer parameters.
    params = {name: str(value) for name, value in now.stage.params.items() if name not in run.params}
    drops = drop_points(now, start.status, metrics[-1]["step"] if metrics else 0)
    log(client, run, tags, [*run_contents.points(metrics, after), *samples, *drops], params)
    for older in OLDER.values() & run.tags.keys():
        client.delete_tag(run.run_id, older)
        del run.tags[older]
    # A clock may have been set back; no run ends before it began.
    set_status(client, run, status, int(max(began, *(event["time"] * 1000 for event in now.journal))))
    if waiting:  # last: a store that refuses or hangs costs the run nothing else
        log(client, run, _upload(run, files, waiting, position, uploads))
    return run


def is_complete(run: MlflowRun, cursor: Mapping[str, Any], now: Status) -> bool:
    """Whether MLflow has all of a stage that is done, seen without reading its journal. A run that was made anew, of
    as many events, ended at another time."""
    if now.state != "done" or run.status != "FINISHED" or cursor.get("record") != VERSION:
        return False
    at_end = cursor.get("state") == "done" and cursor.get("seq") == cursor.get("files") == now.last["seq"]
    if not at_end or run.end_time != int(now.last["time"] * 1000):
        return False
    return bool(system_metrics.read(now.folder, cursor["system"])[1] == cursor["system"])


def has_wrong_params(run: MlflowRun, stage: Stage) -> bool:
    """Whether a parameter of the run has another value than in the stage, or is a method's without `method_`."""
    wanted = {name: str(value) for name, value in stage.params.items()}
    return any(
        wanted[name] != value if name in wanted else f"method_{name}" in wanted
        for name, value in run.params.items()
    )


def _created(client: Any, experiment: str, now: Status, began: int) -> MlflowRun:
    stage = now.stage
    tags = {
        "stage_key": stage.key,
        "role": run_contents.role(stage),
        "mlflow.source.type": "JOB",
        "mlflow.source.name": f"suite run {stage.key}",
        "mlflow.user": _owner(now),
    }
    return created(client, experiment, stage.name, tags, start_time=began)


def _owner(now: Status) -> str:
    """Who ran it: whose its run directory is."""
    try:
        return now.folder.owner()
    except (KeyError, OSError):  # a user id without a name
        return ""


def _for_people(experiment: str, run: MlflowRun, now: Status, start: FloatRun) -> dict[str, str]:
    """The tags by which people find and compare runs. A description of the user's own stays."""
    flow = "?workflowType=machine_learning"
    page = f"#/experiments/{experiment}/runs/{start.run_id}{flow}" if start.run_id else ""
    tags = {
        "configuration": configuration(now.stage),
        "mlflow.runColor": colour_and_marker(str(now.stage.params["method"]))[0],
    }
    there = run.tags.get(NOTE, "")
    if not there or there.startswith(f"{now.stage.name}."):
        tags[NOTE] = note(now, start.status, page)
    return tags


def _upload(
    run: MlflowRun,
    files: Mapping[str, tuple[int, bytes | str]],
    waiting: Mapping[str, bytes],
    position: Mapping[str, Any],
    uploads: Uploads,
) -> dict[str, str]:
    """Log those of `files` that are waiting; gives the tags that say what was refused and is to be tried again."""
    refused = uploads.upload(run, waiting)
    reached = min((files[name][0] - 1 for name in refused), default=position["files"])
    contents = {name: refused.get(name, content) for name, (_, content) in files.items()}
    return {
        "artifacts_left_out": run_contents.left_out(contents),
        SYNCED: json.dumps({**position, "files": reached}),
    }


def _datasets(now: Status, after: int) -> list[Any]:
    """The data that the journal names after event `after`, each split with its digest. MLflow keeps one of each."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name, found = str(now.stage.params["dataset"]), {}
    for event in now.journal:
        if event["event"] == "data" and event["seq"] > after:
            digest, split = str(event.get("sha256"))[:64], str(event.get("split"))[:64]
            source = json.dumps({"sha256": digest})
            profile = json.dumps({"images": str(event.get("images"))[:64]})
            dataset = Dataset(name, digest[:16], "sha256", source, profile=profile)
            found[split, digest] = DatasetInput(dataset, [InputTag("mlflow.data.context", split)])
    return list(found.values())
