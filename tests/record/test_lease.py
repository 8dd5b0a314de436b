"""One process at a time has a run; of jobs of a cluster the later one takes it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from suite.ranks import Ranks
from suite.recipe import Training
from suite.recipe.errors import SuiteError
from suite.record import lease
from suite.record.journal import Journal, read_events
from suite.record.waiting import lock_exclusively
from suite.run.stage import Folders, run


def test_one_process_at_a_time_runs_a_stage(tiny_training: Training, tmp_path: Path) -> None:
    with (
        lease.lock(tmp_path / tiny_training.key),
        pytest.raises(SuiteError, match=r"is being run by process \d+"),
    ):
        run(tiny_training, Ranks(), Folders(tmp_path, tmp_path))
    assert not lease.locked(tmp_path / tiny_training.key)


def test_a_job_takes_a_run_from_an_earlier_job_which_then_can_write_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "TAKEOVER_SECONDS", 0.2)
    monkeypatch.setenv("SUITE_JOB", "7.0")
    with lease.lock(tmp_path) as first:
        orphan = Journal(tmp_path, lease=first)
        orphan.write("started")
        monkeypatch.setenv("SUITE_JOB", "7.1")
        with lease.lock(tmp_path) as second:
            heir = Journal(tmp_path, lease=second)
            heir.write("started")
            for attempt_to_write in (
                lambda: orphan.write("metrics"),
                orphan.sync,
                lambda: orphan.finish("key"),
            ):
                with pytest.raises(lease.ReplacedError, match="was taken over by process .*, job 7.1"):
                    attempt_to_write()
            heir.metrics(1, top1=50.0)
        assert [(e["attempt"], e["event"]) for e in read_events(tmp_path)] == [
            (1, "started"),
            (2, "started"),
            (2, "metrics"),
        ]
        assert orphan.replaced and not heir.replaced


def test_a_disk_without_locks_is_an_error_and_not_a_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the job of a scheduler, which runs each once: the lease keeps out an earlier one."""

    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.delenv("SUITE_JOB", raising=False)
    monkeypatch.setattr("fcntl.flock", without)
    said = r"has no locks \(No locks available\), so that two processes .*; choose a disk that has"
    with pytest.raises(SuiteError, match=said), lease.lock(tmp_path / "run"):
        pass
    with pytest.raises(SuiteError, match=f"{tmp_path} {said}"), (tmp_path / "lock").open("a") as stream:
        lock_exclusively(stream, "another process is at work")
    monkeypatch.setenv("SUITE_JOB", "7.0")
    with lease.lock(tmp_path / "run") as held:
        assert ", job 7.0, " in held


@pytest.mark.parametrize("jobs", [("", "7.0"), ("7.0", "")])
def test_a_job_takes_nothing_from_a_person_and_a_person_nothing_from_a_job(
    jobs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "TRIES", 2)
    monkeypatch.setenv("SUITE_JOB", jobs[0])
    with lease.lock(tmp_path) as first:
        monkeypatch.setenv("SUITE_JOB", jobs[1])
        with pytest.raises(SuiteError, match="is being run by process"), lease.lock(tmp_path):
            pass
        assert not Journal(tmp_path, lease=first).replaced
