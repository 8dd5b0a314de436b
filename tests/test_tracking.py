"""MLflow follows the journals: whatever happens to a sync, the next one leaves one run a stage and each point once."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from suite import events, follower, tracking
from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.methods.percentile import Percentile
from suite.methods.qat_symmetric import QatSymmetric
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Stage, Training, plan
from suite.values import SuiteError

EPOCHS = 4
SGD = Sgd(epochs=EPOCHS, batch=128, lr=0.05, precision=Precision("O0"))
TRAININGS = [Training(Network("resnet20"), Dataset("digits", size=8), SGD, seed=seed) for seed in (0, 1)]
QAT = Sgd(epochs=2, batch=128, lr=0.01, precision=Precision("O0"))
METHODS = [Amax(4, 4), Amax(8, 8), KSigma(5), KSigma(8), Percentile(4, 4), QatSymmetric(feed=QAT)]
SWEEP = plan([Recipe(training, method) for method in METHODS for training in TRAININGS])

forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["mlflow.tracking", "suite.tracking", "suite.methods.qat_symmetric", "pytest"])


@pytest.fixture(autouse=True)
def _embedded(tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, and in `tmp_path` a prepared database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(database)


def opened(runs: Path, stage: Stage) -> events.Journal:
    """The journal of a further attempt at `stage`, after its first event."""
    (runs / stage.key).mkdir(parents=True, exist_ok=True)
    journal = events.Journal(runs / stage.key)
    journal.write("started", host="node1", pid=1, device="cpu", commit="c0ffee")
    return journal


def score(journal: events.Journal, step: int, top1: float, loss: float = 0.5) -> None:
    journal.metrics(step, top1=top1, top5=100.0, loss=loss, images_per_s=900.0, model_size_mb=0.3)


def run_through(runs: Path, stage: Stage, top1: float = 90.0) -> None:
    """What a run of `stage` leaves, without the work; each epoch is 5 points better than the one before."""
    journal = opened(runs, stage)
    epochs = EPOCHS if isinstance(stage, Training) else 2 if isinstance(stage.method.feed, Sgd) else 0
    for epoch in range(1, epochs + 1):
        journal.metrics(epoch, train_loss=1 / epoch, train_images_per_s=300.0)
        score(journal, epoch, top1 - 5 * (epochs - epoch), 2 / epoch)
    if not epochs:
        score(journal, 0, top1)
    journal.finish(stage.key, top1=top1, top5=100.0, loss=0.5)
    journal.close()


def run_sweep(runs: Path) -> None:
    """All of SWEEP, no two with the same top1."""
    for number, stage in enumerate(SWEEP):
        run_through(runs, stage, top1=50 + number)


def runs_in(where: str, sweep: str = "demo") -> list[Any]:
    client = MlflowClient(where)
    experiment = client.get_experiment_by_name(sweep)
    return list(client.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []


def the_run(runs: Path, stage: Stage) -> Any:
    (found,) = [run for run in runs_in(tracking.uri(runs)) if run.data.tags["stage_key"] == stage.key]
    return found


def points(where: str, run: Any) -> list[tuple[str, int, float, int]]:
    """(metric, step, value, milliseconds) as often as MLflow has them."""
    client = MlflowClient(where)
    history = [
        point for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)
    ]
    return sorted((point.key, point.step, point.value, point.timestamp) for point in history)


def content(where: str) -> dict[str, Any]:
    """Everything that MLflow has of the sweep, but for the ids it chose itself."""
    found = {}
    for run in runs_in(where):
        own = ("mlflow.note.content", "mlflow.user", "run_directory", "checkpoint")
        tags = {name: value for name, value in run.data.tags.items() if name not in own}
        info = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
        assert tags["stage_key"] not in found, f"two runs of {run.info.run_name}"
        found[tags["stage_key"]] = (info, run.data.params, tags, points(where, run))
    return found


def test_every_stage_with_a_journal_has_one_run_with_its_parameters_points_times_tags_and_status(
    tmp_path: Path,
) -> None:
    run_sweep(tmp_path)
    idle = Training(Network("resnet20"), Dataset("digits", size=8), SGD, seed=9)
    tracking.sync("demo", [*SWEEP, idle], tmp_path)
    where = tracking.uri(tmp_path)
    found = {run.data.tags["stage_key"]: run for run in runs_in(where)}
    assert len(found) == len(runs_in(where)) == len(SWEEP) == 14
    counted = 0
    for stage in SWEEP:
        run, journal = found[stage.key], events.read(tmp_path / stage.key)
        assert run.info.run_name == stage.name
        assert run.info.status == "FINISHED"
        assert run.info.start_time == int(journal[0]["time"] * 1000)
        assert run.info.end_time == int(journal[-1]["time"] * 1000)
        assert run.data.params == {name: str(value) for name, value in stage.params.items()}
        assert {"method", "weight_bits", "act_bits", "seed", "model", "dataset"} <= run.data.params.keys()
        assert run.data.tags["role"] == ("training" if isinstance(stage, Training) else "recipe")
        assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
        assert "mlflow.parentRunId" not in run.data.tags
        written = [
            (name, event["step"], value, int(event["time"] * 1000))
            for event in journal
            if event["event"] == "metrics"
            for name, value in event["values"].items()
        ]
        assert points(where, run) == sorted(written)
        counted += len(written)
    assert counted == 2 * EPOCHS * 7 + 10 * 5 + 2 * 2 * 7
    assert found[Recipe(TRAININGS[0], Amax(4, 4)).key].info.run_name == "amax w4a4 seed 0"


def test_syncing_again_changes_nothing(tmp_path: Path) -> None:
    run_sweep(tmp_path)
    first = tracking.sync("demo", SWEEP, tmp_path)
    before = content(tracking.uri(tmp_path))
    assert tracking.sync("demo", SWEEP, tmp_path) == first
    assert content(tracking.uri(tmp_path)) == before
    assert len(before) == 14
    assert sum(len(run[-1]) for run in before.values()) == 134


def test_a_sync_between_two_events_of_one_epoch_loses_neither(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    for epoch in (1, 2):
        journal.metrics(epoch, train_loss=1 / epoch)
        tracking.sync("demo", [stage], tmp_path)
        score(journal, epoch, 90.0)
        tracking.sync("demo", [stage], tmp_path)
    found = Counter(
        (name, step) for name, step, *_ in points(tracking.uri(tmp_path), the_run(tmp_path, stage))
    )
    assert len(found) == 12
    assert set(found.values()) == {1}


def test_a_training_of_more_points_than_one_request_takes_arrives_whole(tmp_path: Path) -> None:
    journal = opened(tmp_path, TRAININGS[0])
    for epoch in range(1, 401):
        score(journal, epoch, 90.0)
    tracking.sync("demo", TRAININGS[:1], tmp_path)
    assert (
        len(points(tracking.uri(tmp_path), the_run(tmp_path, TRAININGS[0]))) == 400 * 5 > 2 * tracking.BATCH
    )


def test_a_failed_stage_is_failed_with_its_first_error_line_and_no_longer_once_it_is_done(
    tmp_path: Path,
) -> None:
    stage = SWEEP[1]
    journal = opened(tmp_path, stage)
    journal.write("failed", error="OutOfMemoryError: 3 GiB wanted", traceback="...")
    journal.close()
    tracking.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "OutOfMemoryError: 3 GiB wanted")
    run_through(tmp_path, stage)
    tracking.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert (run.info.status, run.data.tags["error"], run.data.tags["attempt"]) == ("FINISHED", "", "2")


def test_a_stage_is_running_while_its_process_holds_it_and_killed_once_that_died(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    with events.lock(tmp_path / stage.key):
        score(opened(tmp_path, stage), 1, 60.0)
        tracking.sync("demo", [stage], tmp_path)
        assert the_run(tmp_path, stage).info.status == "RUNNING"
    tracking.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert run.info.status == "KILLED"
    assert run.info.end_time == int(events.read(tmp_path / stage.key)[-1]["time"] * 1000)


@pytest.mark.parametrize(
    ("again_from", "kept"), [(1, 0), (3, 2)], ids=["from the start", "from a checkpoint"]
)
def test_a_repeated_attempt_puts_its_points_in_the_place_of_the_old_ones(
    tmp_path: Path, again_from: int, kept: int
) -> None:
    stage = TRAININGS[0]
    first = opened(tmp_path, stage)
    for epoch in (1, 2, 3):
        score(first, epoch, 10.0 + epoch)
        tracking.sync("demo", [stage], tmp_path)
    second = opened(tmp_path, stage)
    tracking.sync("demo", [stage], tmp_path)
    for epoch in range(again_from, EPOCHS + 1):
        score(second, epoch, 20.0 + epoch)
        tracking.sync("demo", [stage], tmp_path)
    found = [
        point for point in points(tracking.uri(tmp_path), the_run(tmp_path, stage)) if point[0] == "top1"
    ]
    assert [step for _, step, _, _ in found] == [1, 2, 3, 4]
    assert [value for _, _, value, _ in found] == [(10.0 if s <= kept else 20.0) + s for s in (1, 2, 3, 4)]


def test_a_run_directory_that_was_made_anew_is_a_new_run(tmp_path: Path) -> None:
    stage = SWEEP[1]
    run_through(tmp_path, stage, top1=70)
    tracking.sync("demo", [stage], tmp_path)
    for file in (tmp_path / stage.key).iterdir():
        file.unlink()
    time.sleep(0.002)
    run_through(tmp_path, stage, top1=80)
    tracking.sync("demo", [stage], tmp_path)
    found = points(tracking.uri(tmp_path), the_run(tmp_path, stage))
    assert [value for name, _, value, _ in found if name == "top1"] == [80]


def test_a_run_that_the_client_made_twice_is_there_once_after_the_next_sync(tmp_path: Path) -> None:
    run_through(tmp_path, SWEEP[1])
    experiment = tracking.sync("demo", SWEEP[:2], tmp_path)
    before = content(tracking.uri(tmp_path))
    began = int(events.read(tmp_path / SWEEP[1].key)[0]["time"] * 1000)
    MlflowClient(tracking.uri(tmp_path)).create_run(experiment, began, {"stage_key": SWEEP[1].key})
    assert len(runs_in(tracking.uri(tmp_path))) == 2
    tracking.sync("demo", SWEEP[:2], tmp_path)
    assert content(tracking.uri(tmp_path)) == before


def test_a_loss_that_is_not_a_number_stays_one_and_is_said(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    score(journal, 1, 50.0, loss=0.7)
    score(journal, 2, 10.0, loss=math.inf)
    journal.finish(stage.key, top1=10.0, top5=50.0, loss=math.nan)
    tracking.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert math.isnan(run.data.metrics["loss"])
    assert run.data.metrics["top1"] == 10.0
    assert run.data.tags["diverged"] == "the evaluation gave NaN"
    before = repr(content(tracking.uri(tmp_path)))
    tracking.sync("demo", [stage], tmp_path)
    assert repr(content(tracking.uri(tmp_path))) == before


def test_the_report_is_one_run_whose_files_follow_the_folder(tmp_path: Path) -> None:
    run_through(tmp_path, SWEEP[1])
    report, copied = tmp_path / "results" / "demo", tmp_path / "copied"
    report.mkdir(parents=True)
    copied.mkdir()
    client = MlflowClient(tracking.uri(tmp_path))

    def synced(**files: str) -> tuple[str, dict[str, str]]:
        for file in report.iterdir():
            file.unlink()
        for name, text in files.items():
            (report / f"{name}.md").write_text(text)
        tracking.sync("demo", SWEEP[:2], tmp_path, report)
        (run,) = [run for run in runs_in(tracking.uri(tmp_path)) if run.data.tags["role"] == "report"]
        assert (run.info.run_name, run.info.status) == ("report demo", "FINISHED")
        there = [item.path for item in client.list_artifacts(run.info.run_id)]
        texts = {
            Path(name).stem: Path(client.download_artifacts(run.info.run_id, name, str(copied))).read_text()
            for name in there
        }
        return run.info.run_id, texts

    first, texts = synced(table="one", plot="two")
    assert texts == {"table": "one", "plot": "two"}
    assert synced(table="one", plot="two") == (first, texts)
    assert synced(table="new", plot="two") == (first, {"table": "new", "plot": "two"})
    assert synced(table="new")[1] == {"table": "new"}
    assert len(runs_in(tracking.uri(tmp_path))) == 2


def _sync_to_statement(runs: Path, last: int, counted: Any) -> None:
    """Sync, and die by SIGKILL instead of executing the SQL statement after `last` of them."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def count(*_: Any) -> None:
        if counted.value == last:
            os.kill(os.getpid(), signal.SIGKILL)
        counted.value += 1

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    tracking.sync("demo", SWEEP[:5], runs)


def test_a_sync_killed_anywhere_and_repeated_leaves_what_an_undisturbed_one_leaves(
    tmp_path: Path, database: bytes
) -> None:
    runs = tmp_path / "whole"
    for stage in SWEEP[:5]:
        run_through(runs, stage)
    counted = forked.Value("i", 0)

    def sync_until(last: int) -> int | None:
        counted.value = 0
        process = forked.Process(target=_sync_to_statement, args=(runs, last, counted))
        process.start()
        process.join()
        return process.exitcode

    (runs / "mlflow.db").write_bytes(database)
    assert sync_until(10**9) == 0
    statements, whole = counted.value, content(tracking.uri(runs))
    assert len(whole) == 5
    there_when_killed = set()
    for last in random.Random(0).sample(range(10, statements), 6):
        for file in runs.glob("mlflow.db*"):
            file.unlink()
        runs = runs.rename(tmp_path / f"killed at {last}")
        (runs / "mlflow.db").write_bytes(database)
        assert sync_until(last) == -signal.SIGKILL
        there_when_killed.add(len(runs_in(tracking.uri(runs))))
        assert sync_until(10**9) == 0
        assert content(tracking.uri(runs)) == whole, f"killed at statement {last} of {statements}"
    assert len(there_when_killed) > 2, f"the cuts fell together: {there_when_killed} runs were there"


def _sync_together(runs: Path, barrier: Barrier) -> None:
    barrier.wait()
    tracking.sync("demo", SWEEP, runs)


def _prepare_together(runs: Path, barrier: Barrier) -> None:
    barrier.wait()
    tracking.prepare(runs)


def _at_once(target: Any, count: int, runs: Path) -> list[int | None]:
    barrier = forked.Barrier(count)
    processes = [forked.Process(target=target, args=(runs, barrier)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_a_fresh_database_prepared_by_four_processes_and_synced_by_two_at_once_is_whole(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    assert _at_once(_prepare_together, 4, runs) == [0] * 4
    assert [file.name for file in runs.glob("mlflow.db*")] == ["mlflow.db"]
    run_sweep(runs)
    assert _at_once(_sync_together, 2, runs) == [0, 0]
    found = content(tracking.uri(runs))
    assert len(found) == 14
    assert sum(len(run[-1]) for run in found.values()) == 134


def test_a_server_that_accepts_and_never_answers_does_not_hold_up_a_launch(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; import mlflow; from suite.follower import Follower\n"
        "follower = Follower('demo', [], Path(sys.argv[1]), every_seconds=0.1)\n"
        "follower.start(); time.sleep(0.5); began = time.monotonic()\n"
        "follower.finish(within_seconds=2); print(follower.error); print(time.monotonic() - began)\n"
    )
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(8)
        server = f"http://127.0.0.1:{hole.getsockname()[1]}"
        ended = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "MLFLOW_TRACKING_URI": server},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert ended.stdout
        said, waited = ended.stdout.readline(), float(ended.stdout.readline())
        told = time.monotonic()
        assert ended.wait(timeout=60) == 0
    assert said == f"{server} was not up to date after 2 s\n"
    assert 2 <= waited < 4
    assert time.monotonic() - told < 4, "the interpreter must not wait for the thread"
    assert follower.PATIENCE_SECONDS <= 25


def test_a_server_that_is_not_there_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        SuiteError, match=r"127.0.0.1:9 failed: .{,50}Connection refused; .* MLFLOW_TRACKING_URI is"
    ):
        tracking.sync("demo", SWEEP, tmp_path)


def test_a_broken_database_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(SuiteError, match=r"file is not a database; .*move .*mlflow\.db away"):
        tracking.sync("demo", SWEEP, tmp_path)


def test_an_experiment_deleted_in_the_browser_is_named_with_the_remedy(tmp_path: Path) -> None:
    experiment = tracking.sync("demo", SWEEP, tmp_path)
    MlflowClient(tracking.uri(tmp_path)).delete_experiment(experiment)
    with pytest.raises(SuiteError, match=rf"restore it with .*--experiment-id {experiment}"):
        tracking.sync("demo", SWEEP, tmp_path)


@contextmanager
def serving(*arguments: str, cwd: Path) -> Iterator[str]:
    """The address of a real `mlflow server` on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1", "--port", port]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**os.environ, **settings}
    with (cwd / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, *arguments],
            cwd=cwd,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, (cwd / "server.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((cwd / "server.log").read_text())
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_server_gets_what_the_embedded_database_gets_and_one_runs_folder_an_experiment(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, report, other = tmp_path / "runs", tmp_path / "results", tmp_path / "other"
    run_sweep(runs)
    report.mkdir()
    other.mkdir()
    (report / "table.md").write_text("a table")
    (runs / "mlflow.db").write_bytes(database)
    tracking.sync("demo", SWEEP, runs)
    embedded = content(tracking.uri(runs))
    with serving(cwd=tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        experiment = tracking.sync("demo", SWEEP, runs, report)
        assert tracking.sync("demo", SWEEP, runs, report) == experiment
        found = content(address)
        reported = found.pop("report demo")
        assert reported[0][0] == "report demo"
        assert found == embedded
        assert len(found) == 14
        with pytest.raises(SuiteError, match="belongs to another runs folder; launch with another --name"):
            tracking.sync("demo", SWEEP, other)
        assert tracking.how_to_open(experiment, runs).startswith(
            f"{address}/#/experiments/{experiment}/runs?"
        )


def test_the_command_that_opens_mlflow_survives_a_shell_and_a_folder_with_a_space(tmp_path: Path) -> None:
    command, link = tracking.how_to_open("7", tmp_path / "my runs").splitlines()
    assert shlex.split(command)[-1] == f"sqlite:///{tmp_path}/my runs/mlflow.db"
    assert link.startswith("http://127.0.0.1:5000/#/experiments/7/runs?")
    assert json.loads(tracking.leaderboard(5))["createdAt"] == 5


def test_a_training_that_diverged_is_tagged_with_its_step(tmp_path: Path) -> None:
    stage = TRAININGS[0]
    journal = opened(tmp_path, stage)
    journal.write("failed", error="the loss became inf or NaN in step 7", cause="diverged", traceback="")
    journal.close()
    tracking.sync("demo", [stage], tmp_path)
    run = the_run(tmp_path, stage)
    assert (run.info.status, run.data.tags["diverged"]) == ("FAILED", "the loss became inf or NaN in step 7")
