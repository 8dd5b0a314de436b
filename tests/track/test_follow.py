"""A launch that waits costs MLflow and the journals nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.embedded import embedded
from fakes.tracking import SWEEP, TRAININGS, content, opened, run_sweep

from suite.record import lease, status
from suite.track import follow, store, sync
from suite.track.follow import Follower

__all__ = ["embedded"]
pytestmark = pytest.mark.usefixtures("embedded")


def test_a_further_sync_reads_no_journal_of_a_run_that_is_done_and_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep(tmp_path)
    sync.sync("demo", SWEEP, tmp_path)
    before, read = content(store.uri(tmp_path)), list[Path]()
    monkeypatch.setattr(status, "read_events", lambda folder: read.append(folder))
    sync.sync("demo", SWEEP, tmp_path)
    assert not read and content(store.uri(tmp_path)) == before


def test_a_follower_syncs_when_something_has_changed_and_while_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep(tmp_path)
    synced: list[str] = []
    original = sync.sync
    monkeypatch.setattr(follow, "sync", lambda *words, **more: synced.append(original(*words, **more)))
    follower = Follower("demo", SWEEP, tmp_path)
    for _ in range(3):
        follower._once()
    assert len(synced) == 1 and follower.error is None
    (tmp_path / TRAININGS[0].key / "outcome.json").unlink()
    follower = Follower("demo", SWEEP, tmp_path)
    follower._once()
    opened(tmp_path, TRAININGS[0]).metrics(1, top1=50.0)
    follower._once()
    follower._once()
    assert len(synced) == 3
    with lease.lock(tmp_path / TRAININGS[0].key):
        follower._once()
        follower._once()  # the samples of its node's load are beside its journal
    assert len(synced) == 5


def test_a_follower_tries_again_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def failing(*words: object, **more: object) -> str:
        tried.append(1)
        if len(tried) < 3:
            raise store.AwayError("it is away")
        return "1"

    monkeypatch.setattr(follow, "sync", failing)
    follower = Follower("demo", SWEEP, tmp_path)
    for number in range(5):
        follower._once()
        assert (follower.error is None) == (number >= 2)
    assert len(tried) == 3
