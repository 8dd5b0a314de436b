"""Syncs that are killed or meet, and servers that are away: MLflow ends up whole, or the remedy is said."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from fakes.forking import forked
from fakes.tracking import (
    SWEEP,
    content,
    run_sweep,
    run_through,
    runs_in,
    serving,
)
from fakes.waiting import limit
from mlflow.tracking import MlflowClient

from suite.recipe.errors import SuiteError
from suite.track import follow, store, sync

pytestmark = pytest.mark.usefixtures("embedded")


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
    sync.sync("demo", SWEEP[:5], runs)


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.long)])
def test_a_sync_killed_anywhere_and_repeated_leaves_what_an_undisturbed_one_leaves(
    kills: int, tmp_path: Path, database: bytes
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
    statements, whole = counted.value, content(store.uri(runs))
    assert len(whole) == 5
    there_when_killed = set()
    for last in random.Random(0).sample(range(10, statements), kills):
        for file in runs.glob("mlflow.db*"):
            file.unlink()
        runs = runs.rename(tmp_path / f"killed at {last}")
        (runs / "mlflow.db").write_bytes(database)
        assert sync_until(last) == -signal.SIGKILL
        there_when_killed.add(len(runs_in(store.uri(runs))))
        assert sync_until(10**9) == 0
        assert content(store.uri(runs)) == whole, f"killed at statement {last} of {statements}"
    assert len(there_when_killed) > min(kills - 1, 2), (
        f"the cuts fell together: {there_when_killed} runs were there"
    )


def _sync_together(runs: Path, barrier: Barrier) -> None:
    barrier.wait()
    sync.sync("demo", SWEEP, runs)


def _prepare_together(runs: Path, barrier: Barrier) -> None:
    barrier.wait()
    store.prepare(runs)


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
    found = content(store.uri(runs))
    assert len(found) == 14
    assert sum(len(run[-1]) for run in found.values()) == 134


def test_a_server_that_accepts_and_never_answers_does_not_hold_up_a_launch(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; import mlflow; from suite.track.follow import Follower\n"
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
        began = time.monotonic()
        assert ended.wait(timeout=limit(60)) == 0
    assert said == f"{server} was not up to date after 2 s\n"
    assert 2 <= waited < limit(4)
    assert time.monotonic() - began < limit(4), "the interpreter must not wait for the thread"
    assert follow.PATIENCE_SECONDS <= 25


def test_a_server_that_is_not_there_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        SuiteError, match=r"127.0.0.1:9 failed: .{,50}Connection refused; .* MLFLOW_TRACKING_URI is"
    ):
        sync.sync("demo", SWEEP, tmp_path)


def test_a_broken_database_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(SuiteError, match=r"file is not a database; .*move .*mlflow\.db away"):
        sync.sync("demo", SWEEP, tmp_path)


def test_an_experiment_deleted_in_the_browser_is_named_with_the_remedy(tmp_path: Path) -> None:
    experiment = sync.sync("demo", SWEEP, tmp_path)
    MlflowClient(store.uri(tmp_path)).delete_experiment(experiment)
    with pytest.raises(SuiteError, match=rf"restore it with .*--experiment-id {experiment}"):
        sync.sync("demo", SWEEP, tmp_path)


def test_a_server_gets_what_the_embedded_database_gets_and_one_runs_folder_an_experiment(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, report, other = tmp_path / "runs", tmp_path / "results", tmp_path / "other"
    run_sweep(runs)
    report.mkdir()
    other.mkdir()
    (report / "table.md").write_text("a table")
    (runs / "mlflow.db").write_bytes(database)
    sync.sync("demo", SWEEP, runs)
    embedded = content(store.uri(runs))
    with serving(cwd=tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        experiment = sync.sync("demo", SWEEP, runs, report)
        assert sync.sync("demo", SWEEP, runs, report) == experiment
        found = content(address)
        reported = found.pop("report demo")
        assert reported[0][0] == "report demo"
        assert found == embedded
        assert len(found) == 14
        with pytest.raises(SuiteError, match="belongs to another runs folder; launch with another --name"):
            sync.sync("demo", SWEEP, other)
        assert store.how_to_open(experiment, runs).startswith(f"{address}/#/experiments/{experiment}/runs?")
