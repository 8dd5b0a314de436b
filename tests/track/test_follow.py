"""A launch that waits costs MLflow and the journals nothing: it is asked once, and gets what has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.embedded import embedded
from fakes.tracking import SWEEP, TRAININGS, content, opened, points, run_sweep, runs_in, the_run
from mlflow.tracking import MlflowClient

from suite.record import lease, status
from suite.track import store, sync
from suite.track.follow import Follower
from suite.track.sync import Syncer

__all__ = ["embedded"]
pytestmark = pytest.mark.usefixtures("embedded")


class Counting:
    """A client that lists the calls that were made."""

    def __init__(self, client: Any, made: list[str]) -> None:
        self._client, self._made = client, made

    def __getattr__(self, name: str) -> Any:
        self._made.append(name)
        return getattr(self._client, name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of all clients from now on."""
    made, client = list[str](), store.client
    monkeypatch.setattr(store, "client", lambda where: Counting(client(where), made))
    return made


@contextmanager
def only(calls: list[str], *wanted: str) -> Iterator[None]:
    calls.clear()
    yield
    assert calls == list(wanted)


def test_a_further_sync_reads_no_journal_of_a_run_that_is_done_and_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep(tmp_path)
    sync.sync("demo", SWEEP, tmp_path)
    before, read = content(store.uri(tmp_path)), list[Path]()
    monkeypatch.setattr(status, "read_events", lambda folder: read.append(folder))
    sync.sync("demo", SWEEP, tmp_path)
    assert not read and content(store.uri(tmp_path)) == before


def test_mlflow_is_asked_once_and_then_gets_what_has_changed_in_a_request_each(
    tmp_path: Path, calls: list[str]
) -> None:
    run_sweep(tmp_path)
    (tmp_path / TRAININGS[0].key / "outcome.json").unlink()
    syncer = Syncer("demo", SWEEP, tmp_path)
    experiment = syncer.sync()
    assert calls.count("search_runs") == 1
    with only(calls):
        assert syncer.sync() == experiment
    with lease.lock(tmp_path / TRAININGS[0].key):
        journal = opened(tmp_path, TRAININGS[0])
        syncer.sync()
        journal.metrics(5, top1=51.0)
        with only(calls, "log_batch"):
            syncer.sync()
        with only(calls):
            syncer.sync()
        journal.write("failed", error="it broke", cause="code")
        journal.close()
    with only(calls, "log_batch", "set_terminated"):
        syncer.sync()
    for _ in range(2):
        with only(calls):
            syncer.sync()
    assert syncer.is_settled(syncer.seen.of_all(SWEEP))
    found, where = the_run(tmp_path, TRAININGS[0]), store.uri(tmp_path)
    assert (found.info.status, found.data.tags["error"]) == ("FAILED", "it broke")
    assert [value for name, step, value, _ in points(where, found) if (name, step) == ("top1", 5)] == [51.0]
    before = content(where)
    sync.sync("demo", SWEEP, tmp_path)
    assert content(where) == before, "one that asks for everything finds nothing to do"


def test_it_is_asked_again_after_an_error_and_after_another_process_has_synced(
    tmp_path: Path, calls: list[str]
) -> None:
    run_sweep(tmp_path)
    (tmp_path / TRAININGS[1].key / "outcome.json").unlink()
    syncer = Syncer("demo", SWEEP, tmp_path)
    syncer.sync()
    opened(tmp_path, TRAININGS[1]).metrics(
        1, top1=50.0
    )  # replaces a point, so that the other makes a new run
    sync.sync("demo", SWEEP, tmp_path)
    before = content(store.uri(tmp_path))
    calls.clear()
    syncer.sync()
    assert calls.count("search_runs") == 1 and content(store.uri(tmp_path)) == before

    lost = the_run(tmp_path, TRAININGS[1])
    MlflowClient(store.uri(tmp_path)).delete_run(lost.info.run_id)
    opened(tmp_path, TRAININGS[1]).close()
    with pytest.raises(store.AwayError, match="must be in the 'active' state"):
        syncer.sync()
    syncer.sync()
    assert len(runs_in(store.uri(tmp_path))) == len(SWEEP)
    assert the_run(tmp_path, TRAININGS[1]).info.run_id != lost.info.run_id


def test_a_follower_syncs_until_nothing_more_is_to_come_and_while_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep(tmp_path)
    synced: list[str] = []
    original = Syncer.sync
    monkeypatch.setattr(Syncer, "sync", lambda *given, **more: synced.append(original(*given, **more)))
    follower = Follower("demo", SWEEP, tmp_path)
    for _ in range(4):
        follower._once()
    assert len(synced) == 2 and follower.error is None, "the last sample may come after the last event"
    (tmp_path / TRAININGS[0].key / "outcome.json").unlink()
    follower = Follower("demo", SWEEP, tmp_path)
    follower._once()
    opened(tmp_path, TRAININGS[0]).metrics(1, top1=50.0)
    for _ in range(4):
        follower._once()
    assert len(synced) == 5
    with lease.lock(tmp_path / TRAININGS[0].key):
        for _ in range(3):
            follower._once()  # the samples of its node's load are beside its journal
    assert len(synced) == 8


def test_a_follower_tries_again_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def failing(*given: object, **more: object) -> str:
        tried.append(1)
        if len(tried) < 3:
            raise store.AwayError("it is away")
        return "1"

    monkeypatch.setattr(Syncer, "sync", failing)
    follower = Follower("demo", SWEEP, tmp_path)
    for number in range(3):
        follower._once()
        assert (follower.error is None) == (number >= 2)
    assert len(tried) == 3


def test_a_follower_asks_for_all_runs_when_it_ends(tmp_path: Path, calls: list[str]) -> None:
    run_sweep(tmp_path)
    follower = Follower("demo", SWEEP, tmp_path, every_seconds=0.05)
    follower.start()
    follower.finish()
    assert follower.error is None and 1 <= calls.count("search_runs") <= 2
    assert len(runs_in(store.uri(tmp_path))) == len(SWEEP)
