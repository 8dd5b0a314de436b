"""A sync killed at each call, a full disk, clocks that go backwards, torn lines: MLflow has each point once."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import journals
from fakes.cluster import until
from fakes.embedded import embedded, state_of
from fakes.following import Following
from fakes.journals import RUNS, Embedded, difference, write_run, write_share
from fakes.missing import missing
from fakes.tracking import score, the_run
from mlflow.tracking import MlflowClient

from suite.recipe.errors import SuiteError
from suite.record import journal as journal_module
from suite.record.journal import Journal
from suite.track import store, sync
from suite.track.follow import follow

__all__ = ["embedded"]
pytestmark = pytest.mark.usefixtures("embedded")


class _Mortal:
    """A client whose process dies by SIGKILL instead of making the call after `last` of them."""

    def __init__(self, client: Any, last: int, counted: Any) -> None:
        self._client, self._last, self._counted = client, last, counted

    def __getattr__(self, name: str) -> Any:
        if self._counted.value == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self._counted.value += 1
        return getattr(self._client, name)


def _sync_to_call(runs: Path, last: int, counted: Any) -> int:
    """The exit status of a process that syncs; a fork, since thirty that import everything anew take minutes."""
    counted.value, child = 0, os.fork()
    if not child:
        try:
            real = store.client
            store.client = lambda where: _Mortal(real(where), last, counted)
            sync.sync("demo", journals.stages(3), runs, runs / "report")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("most", [2, pytest.param(10**9, marks=pytest.mark.long)], ids=["some", "each"])
def test_a_sync_killed_at_each_of_its_calls_and_repeated_leaves_what_an_undisturbed_one_leaves(
    most: int, tmp_path: Path, database: bytes
) -> None:
    runs, stages = tmp_path / "whole", journals.stages(3)
    write_share(runs, stages, 0)
    (runs / "report").mkdir()
    (runs / "report" / "table.md").write_text("a table")
    counted = multiprocessing.Value("i", 0)
    (runs / "mlflow.db").write_bytes(database)
    assert _sync_to_call(runs, 10**9, counted) == 0
    calls, whole = counted.value, state_of(runs)
    assert len(whole[0]) == 4 and set(whole[1]) == {"best-w2", "best-w2a2"}
    assert sorted(whole[2].values()) == [*[["curve.csv"]] * 3, ["table.md"]]
    for last in random.sample(range(calls), min(most, calls)):  # others each time
        for file in runs.glob("mlflow.db*"):
            file.unlink()
        runs = runs.rename(tmp_path / f"killed-{last}")
        (runs / "mlflow.db").write_bytes(database)
        assert _sync_to_call(runs, last, counted) == -signal.SIGKILL
        sync.sync("demo", stages, runs, runs / "report")
        assert state_of(runs) == whole, f"killed at call {last} of {calls}"
        assert difference(Embedded(runs), "demo", runs, stages) == (3 * journals.EPOCHS * 7, 0, 0)
    print(f"killed at {min(most, calls)} of {calls} calls")
    assert calls > 15


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    if os.geteuid() != 0:
        missing("a disk of its own needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_was_full_for_the_journal_and_for_mlflow_has_every_point_once_when_it_has_room(
    tiny_disk: Path, database: bytes
) -> None:
    (tiny_disk / "mlflow.db").write_bytes(database)
    stages = journals.stages(30)
    write_share(tiny_disk, stages[:29], 0)
    filler = tiny_disk / "filler"
    free = shutil.disk_usage(tiny_disk).free
    filler.write_bytes(b"0" * (free - 200_000))
    following = Following("demo", stages, tiny_disk)
    until(lambda: bool(following.said))
    assert "full" in following.said[0] or "No space" in following.said[0], following.said
    folder = tiny_disk / stages[29].key
    folder.mkdir()
    journal = Journal(folder)
    with pytest.raises(OSError, match="No space"):
        for epoch in range(1, 100_000):
            score(journal, epoch, 50.0)
    journal.close()
    last = (folder / "events.jsonl").read_text().splitlines()[-1:]
    print(f"the journal's last line has {len(''.join(last))} characters")
    filler.unlink()
    write_run(tiny_disk, stages[29])
    assert len(following.ends()) == 2
    assert len(Embedded(tiny_disk).ask(RUNS, "demo")) == 30
    assert difference(Embedded(tiny_disk), "demo", tiny_disk, stages) == (30 * journals.EPOCHS * 7, 0, 0)


class _Clock:
    """Goes backwards within an attempt, to the same moment again, and by years between two attempts."""

    monotonic = staticmethod(time.monotonic)
    times = iter([1e9, 1e9 - 50, 1e9 - 3600, 1e9 - 3600, 5e8, 5e8, 5e8 - 1])

    def time(self) -> float:
        return next(self.times)


def test_clocks_that_go_backwards_cost_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = journals.stages(1)[0]
    (tmp_path / stage.key).mkdir()
    monkeypatch.setattr(journal_module, "time", _Clock())
    for epochs in ((1, 2, 3), (3, 4)):
        journal = Journal(tmp_path / stage.key)
        journal.write("started", host="node1", pid=1, device="cpu", commit="c0ffee")
        for epoch in epochs:
            score(journal, epoch, 50.0 + len(epochs))
            sync.sync("demo", [stage], tmp_path)
        journal.close()
    assert difference(Embedded(tmp_path), "demo", tmp_path, [stage]) == (4 * 5, 0, 0)
    run = the_run(tmp_path, stage)
    assert (run.info.start_time, run.info.end_time) == (10**12, 10**12)
    assert run.data.metrics["top1"] == 52.0, "the last epoch's, whatever the clock says"


def test_a_line_that_is_torn_while_it_is_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    stage = journals.stages(1)[0]
    write_run(tmp_path, stage)
    file = tmp_path / stage.key / "events.jsonl"
    whole = file.read_bytes()
    (tmp_path / stage.key / "outcome.json").unlink()
    seen = Counter[int]()
    for end in range(0, len(whole), 97):
        file.write_bytes(whole[:end])
        if end:
            sync.sync("demo", [stage], tmp_path)
            total, lost, doubled = difference(Embedded(tmp_path), "demo", tmp_path, [stage])
            assert (lost, doubled) == (0, 0)
            seen[total] += 1
    file.write_bytes(whole)
    sync.sync("demo", [stage], tmp_path)
    assert difference(Embedded(tmp_path), "demo", tmp_path, [stage]) == (journals.EPOCHS * 7, 0, 0)
    assert len(seen) > journals.EPOCHS


def test_a_follower_does_not_wait_for_what_no_waiting_mends(tmp_path: Path) -> None:
    experiment = sync.sync("demo", journals.stages(1), tmp_path)
    MlflowClient(store.uri(tmp_path)).delete_experiment(experiment)
    with pytest.raises(SuiteError, match="restore it with"):
        list(follow("demo", journals.stages(1), tmp_path, tmp_path / "none"))
