"""Many writers, a follower, and a server that is killed, hangs or loses its database: no metric is lost or doubled.

SUITE_TEST_RUNS says how many runs the 64 writers make; 500 unless set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import journals
import pytest
from journals import RUNS, Embedded, Server, difference, write_share
from places import until
from test_tracking import forked

from suite import tracking
from suite.follower import follow
from suite.recipe import Stage
from suite.records import save_sweep

COUNT = int(os.environ.get("SUITE_TEST_RUNS", "500"))
WRITERS = 64


@pytest.fixture
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Embedded | Server:
    """An embedded database, or a server on PostgreSQL that is chosen by the environment alone."""
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    if request.param == "sqlite":
        return Embedded(tmp_path)
    server: Server = request.getfixturevalue("mlflow_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)
def test_64_writers_of_500_runs_lose_and_double_no_metric_while_a_sync_follows(
    tmp_path: Path, store: Embedded | Server
) -> None:
    stages = journals.stages(COUNT)
    save_sweep(tmp_path, "storm", {}, stages)
    tracking.prepare(tmp_path)
    words = ["sync", "storm", "--follow", "--runs", str(tmp_path), "--report", str(tmp_path / "none")]
    following = subprocess.Popen(
        [sys.executable, "-m", "suite", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    writers = [
        forked.Process(target=write_share, args=(tmp_path, stages[number::WRITERS], 0.2))
        for number in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    written = time.monotonic()
    said = following.communicate(timeout=400)[0]
    print(f"{COUNT} runs: up to date {time.monotonic() - written:.1f} s after the last was written")
    assert following.returncode == 0, said
    assert "MLflow has all runs of storm" in said and "behind" not in said, said
    states = store.ask(RUNS, "storm")
    assert len({key for key, _ in states}) == len(states) == COUNT
    assert {status for _, status in states} == {"FINISHED"}
    points = COUNT * journals.EPOCHS * 7
    assert difference(store, "storm", tmp_path, stages) == (points, 0, 0)


class Following:
    """`follow` in a thread, and what it said."""

    def __init__(self, sweep: str, stages: Sequence[Stage], runs: Path) -> None:
        self.said: list[str] = []
        self._lines = follow(sweep, stages, runs, runs / "none", every_seconds=0.2)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        for line in self._lines:
            self.said.append(line)

    def ends(self, seconds: float = 90) -> list[str]:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), self.said
        return self.said


FAULTS = {
    "server killed": ("mlflow-kill", "mlflow-start"),
    "accepts, never answers": ("mlflow-freeze", "mlflow-thaw"),
    "database stopped": ("database-stop", "database-start"),
}


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_in_the_middle_of_a_sync_and_comes_back_has_every_point_once(
    tmp_path: Path, store: Server, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    stages, sweep = journals.stages(50), fault.replace(" ", "-").replace(",", "")
    write_share(tmp_path, stages[:40], 0)
    following = Following(sweep, stages, tmp_path)
    until(lambda: len(store.ask(RUNS, sweep)) > 4)
    before, after = FAULTS[fault]
    store(before)
    until(lambda: bool(following.said))
    if fault != "database stopped":
        there = len(store.ask(RUNS, sweep))
        assert 4 < there < 40, f"{there} runs were there, so no sync was cut"
    write_share(tmp_path, stages[40:], 0)  # a run goes on meanwhile
    store(after)
    away, back = following.ends()
    assert away.startswith(f"MLflow is behind: MLflow at {store.address} failed: ") and "\n" not in away
    assert back.startswith("MLflow is back after ")
    states = store.ask(RUNS, sweep)
    assert sorted(key for key, _ in states) == sorted(stage.key for stage in stages)
    assert {status for _, status in states} == {"FINISHED"}
    assert difference(store, sweep, tmp_path, stages) == (50 * journals.EPOCHS * 7, 0, 0)
