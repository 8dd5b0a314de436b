"""Journals into MLflow: idempotent, resumable, never in a run's way. The only file that imports mlflow.

One experiment a sweep, one flat run a stage. A run is found by its `stage_key` tag; one syncer at a time holds a
lock, since looking for a tag and then creating a run is not atomic. A run's tag `synced` says how far its journal
was read; it is written after what it vouches for, and MLflow drops a point that it has, so a sync cut anywhere is
mended by the next.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import sqlite3
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.record import system_metrics
from suite.record.journal import counted_metrics
from suite.record.status import Status, Statuses
from suite.record.synced import note_synced
from suite.sweeps.stored import about
from suite.track import run_contents
from suite.track.registry import best_by_width, register
from suite.track.report_run import describe, sync_report
from suite.track.tags import plan_tags, record
from suite.track.ui_view import LEADERBOARD_KEY, colours, leaderboard, pages
from suite.track.uploads import Refusals

STATUS = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "running": "RUNNING"}
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
BATCH = 800
"""Metric points in one request: with the parameters and tags of a run still below MLflow's 1000 items."""

EMBEDDED_PAGE = "http://127.0.0.1:5000"
"""Where the command of `how_to_open` serves the embedded database."""


class AwayError(SuiteError):
    """MLflow did not answer, or could not do what it was asked for; a later sync may find it back."""


def uri(runs: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _embedded(runs / "mlflow.db")


def _embedded(file: Path) -> str:
    return f"sqlite:///{file.resolve()}"


@contextmanager
def _only_one(runs: Path) -> Iterator[str]:
    """Hold the lock; gives the id of this runs folder, which the lock file keeps."""
    with (runs / "mlflow.lock").open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        identity = stream.read()
        if not identity:
            identity = uuid.uuid4().hex
            stream.write(identity)
            stream.flush()
        yield identity


@contextmanager
def _explained(where: str, runs: Path) -> Iterator[None]:
    """What goes wrong in MLflow as a SuiteError in one line."""
    for name, value in SETTINGS.items():  # before the import, which reads some of them
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "Caused by" in first:  # urllib3 nests the reason in its whole story
            first = first.rpartition("): ")[2].removesuffix('"))')
        remedy = "check that the server runs and that MLFLOW_TRACKING_URI is right"
        if where.startswith("sqlite:"):
            remedy = f"if it stays so, move {runs / 'mlflow.db'} away: the journals hold everything"
        raise AwayError(f"MLflow at {where} failed: {first}; {remedy}") from error


def _client(where: str) -> Any:
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(where)


def prepare(runs: Path) -> None:
    """Make the embedded database, once, in one process: two that open a fresh one at once break it for good.

    It is made beside its place and moved there whole, so that a process killed here leaves none, not a half.
    """
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / "mlflow.db"
    if uri(runs) != _embedded(file) or file.exists():
        return
    with _only_one(runs), _explained(uri(runs), runs):
        if file.exists():
            return
        fresh = runs / "mlflow.db.writing"
        fresh.unlink(missing_ok=True)
        _client(_embedded(fresh)).search_experiments(max_results=1)
        with closing(sqlite3.connect(fresh)) as database:
            database.execute("pragma journal_mode=wal")
        fresh.replace(file)


def sync(
    sweep: str,
    stages: Sequence[Stage],
    runs: Path,
    report: Path | None = None,
    refused: dict[str, str] | None = None,
    seen: Statuses | None = None,
) -> str:
    """Bring MLflow up to date with the journals of `stages` and the files of `report`; safe to repeat. Who syncs again
    and again gives what it has `seen` of the runs folder.

    Returns the experiment's id, and in `refused` a line for each kind of thing that MLflow can be without and did not
    take. Raises AwayError where MLflow cannot be reached or takes no run, and SuiteError where the experiment is not
    this sweep's.
    """
    prepare(runs)
    with _only_one(runs) as owner, _explained(uri(runs), runs):
        client = _client(uri(runs))
        experiment = _experiment(client, sweep, runs, owner)
        refusals = Refusals(client, experiment, {} if refused is None else refused)
        known = _runs_by_key(client, experiment)
        colour_of, positions = colours(str(stage.params["method"]) for stage in stages), {}
        statuses = [now for now in (seen or Statuses(runs)).of_all(stages) if now.last]
        for now in statuses:
            colour = colour_of[str(now.stage.params["method"])]
            known[now.stage.key] = _sync_run(
                client, experiment, known.get(now.stage.key), now, colour, refusals
            )
            positions[now.stage.key] = now.last["seq"]
        best = best_by_width(statuses)
        shown = [known[now.stage.key].info.run_id for now in best.values()]
        server = _page()
        note_synced(runs, sweep, positions, pages(server, experiment, shown) if server else {})
        reported = known.get(f"report {sweep}")
        if report is not None and report.is_dir():
            reported = sync_report(client, experiment, reported, sweep, report, refusals)
        describe(client, experiment, sweep, about(runs, sweep), reported)
        with refusals.told("registry", "to register the best recipes"):
            register(client, sweep, best, known, served=bool(server))
    return experiment


def _page() -> str:
    """The address of the server without a name or password that may stand in it; empty where there is none."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    scheme, _, rest = server.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme in ("http", "https") else ""


def _experiment(client: Any, sweep: str, runs: Path, owner: str) -> str:
    found = client.get_experiment_by_name(sweep)
    if found is None:
        embedded = uri(runs).startswith("sqlite:")
        place = (runs.resolve() / "mlflow-artifacts" / sweep).as_uri() if embedded else None
        found = client.get_experiment(client.create_experiment(sweep, artifact_location=place))
    if found.lifecycle_stage == "deleted":
        raise SuiteError(
            f"experiment {sweep!r} was deleted in MLflow; restore it with `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`, or launch with another --name"
        )
    if found.tags.get("runs_folder", owner) != owner:
        raise SuiteError(
            f"experiment {sweep!r} at {uri(runs)} belongs to another runs folder; launch with another --name"
        )
    tags = {
        "runs_folder": owner,
        f"mlflow.sharedViewState.{LEADERBOARD_KEY}": leaderboard(found.creation_time),
    } | plan_tags(runs / "sweeps" / f"{sweep}.json", found.tags)
    for name, value in tags.items():
        if found.tags.get(name) != value:
            client.set_experiment_tag(found.experiment_id, name, value)
    return str(found.experiment_id)


def _runs_by_key(client: Any, experiment: str) -> dict[str, Any]:
    """The runs that are there. Of two of one key one is deleted: a client that missed the answer to its request
    repeats it, and makes a second."""
    page = client.search_runs([experiment], max_results=1000)
    listed = list(page)
    while page.token:
        page = client.search_runs([experiment], max_results=1000, page_token=page.token)
        listed += page
    found: dict[str, Any] = {}
    for run in sorted(listed, key=lambda run: "synced" in run.data.tags, reverse=True):
        key = run.data.tags.get("stage_key")
        if found.setdefault(key, run) is not run and key is not None:
            client.delete_run(run.info.run_id)
    return found


def _sync_run(client: Any, experiment: str, run: Any, now: Status, colour: str, refusals: Refusals) -> Any:
    """Bring one run up to date; the run, which may be another than `run`."""
    from mlflow.entities import Metric, Param

    cursor = json.loads(run.data.tags.get("synced", "{}")) if run else {}
    if run and run_contents.is_complete(run, cursor, now):
        return run
    stage, journal = now.stage, now.journal
    metrics, rewinds = counted_metrics(journal)
    began, status = int(journal[0]["time"] * 1000), STATUS[now.state]
    # MLflow cannot forget a point: a run that holds some which no longer count gives way to a fresh one.
    if run and (run.info.start_time != began or cursor.get("rewinds", 0) != rewinds):
        client.delete_run(run.info.run_id)
        run, cursor = None, {}
    samples, reached = system_metrics.read(now.folder, cursor.get("system", {}))
    position = {
        "seq": journal[-1]["seq"],
        "rewinds": rewinds,
        "state": now.state,
        "system": reached,
        "record": 1,  # a run that was synced before it had that tag, or a cursor of its files, is synced again
        "files": journal[-1]["seq"],
    }
    if cursor == position and run.info.status == status:
        return run
    if run is None:
        tags = {"stage_key": stage.key, "role": run_contents.role(stage), "mlflow.source.type": "JOB"}
        tags["mlflow.source.name"] = f"suite run {stage.key}"
        tags["mlflow.runColor"] = colour
        run = client.create_run(experiment, start_time=began, tags=tags, run_name=stage.name)
    run_id, after = run.info.run_id, cursor.get("seq", 0)
    if datasets := _datasets(now, after):
        client.log_inputs(run_id, datasets)
    points = [Metric(*point) for point in [*run_contents.points(metrics, after), *samples]]
    # An earlier version knew fewer parameters. MLflow takes no other value for one that it has.
    lacking = stage.params.keys() - run.data.params.keys()
    params = [Param(name, str(value)) for name, value in stage.params.items() if name in lacking]
    files, had = run_contents.artifacts(now), cursor.get("files", 0)
    waiting = {name: file for name, (seq, file) in files.items() if seq > had and isinstance(file, bytes)}
    told = run_contents.tags(now, files) | {"record": record(now)}
    if waiting:  # which of them are left out is said when the store has answered
        del told["artifacts_left_out"]
    vouched = position | {"files": had} if waiting else position
    _log(client, run, told | {"synced": json.dumps(vouched)}, points, params)
    if status != "RUNNING":  # a clock may have been set back; no run ends before it began
        client.set_terminated(run_id, status, int(max(began, *(event["time"] * 1000 for event in journal))))
    elif run.info.status != status:
        client.update_run(run_id, status)
    if waiting:  # last: a store that refuses or hangs costs the run nothing else
        _log(client, run, _upload(run, files, waiting, position, refusals))
    return run


def _log(
    client: Any, run: Any, told: Mapping[str, str], points: Sequence[Any] = (), params: Sequence[Any] = ()
) -> None:
    """Log points, parameters and those tags in which the run was found to differ; the tags with the last points."""
    from mlflow.entities import RunTag

    tags = [RunTag(name, value) for name, value in told.items() if run.data.tags.get(name, "") != value]
    while len(points) > BATCH:
        client.log_batch(run.info.run_id, points[:BATCH])
        points = points[BATCH:]
    if points or params or tags:
        client.log_batch(run.info.run_id, points, params, tags)


def _upload(
    run: Any,
    files: Mapping[str, tuple[int, bytes | str]],
    waiting: Mapping[str, bytes],
    position: Mapping[str, Any],
    refusals: Refusals,
) -> dict[str, str]:
    """Log those of `files` that are waiting; gives the tags that say what was refused and is to be tried again."""
    refused = refusals.upload(run, waiting)
    reached = min((files[name][0] - 1 for name in refused), default=position["files"])
    contents = {name: refused.get(name, content) for name, (_, content) in files.items()}
    return {
        "artifacts_left_out": run_contents.left_out(contents),
        "synced": json.dumps({**position, "files": reached}),
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


def how_to_open(experiment: str, runs: Path) -> str:
    """The command that opens MLflow on these runs, where it is embedded, and the page to look at."""
    if server := _page():
        return pages(server, experiment)["table"]
    mlflow = Path(sys.executable).with_name("mlflow")
    shown = os.path.relpath(mlflow) if mlflow.is_relative_to(Path.cwd()) else str(mlflow)
    store = shlex.quote(uri(runs))
    command = f"{shlex.quote(shown)} server --workers 1 --port 5000 --backend-store-uri {store}"
    settings = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"
    return f"{settings} {command}\n{pages(EMBEDDED_PAGE, experiment)['table']}"
