"""A runs folder that somebody else can write to has no file outside it written, and what is damaged there is said."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest
from fakes.runs_folder import begin, finish, plan
from fakes.runs_folder import stage as planned

from analysis.errors import AnalysisError
from analysis.read import run_folders
from suite.launch import local_jobs
from suite.recipe.errors import SuiteError
from suite.record import files, lease, provenance, waiting
from suite.record.journal import Journal
from suite.run import checkpoint


def test_a_lease_with_a_flipped_bit_is_shown_and_the_stage_starts(tmp_path: Path) -> None:
    (tmp_path / "lease").write_bytes(b"process 1 on n\xb1, 5")
    assert lease.holder(tmp_path) == "process 1 on n�"
    with lease.lock(tmp_path) as held:
        assert lease.lease_of(tmp_path) == held


def test_a_disk_without_locks_cannot_say_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    done, begun = planned("amax", 8, 0), planned("amax", 8, 1)
    plan(tmp_path, done, begun)
    finish(tmp_path, done, 90.0)
    folder = begin(tmp_path, begun)
    (folder / "lock").touch()
    (tmp_path / done["key"] / "lock").touch()
    monkeypatch.setattr("fcntl.flock", without)
    with pytest.raises(SuiteError, match=r"has no locks \(No locks available\)"):
        lease.locked(folder)
    with pytest.raises(AnalysisError, match=f"{folder} has no locks"):
        run_folders.load(tmp_path, "small")
    (folder / "lease").write_text("process 1 on node7, job 12.0, 17")
    assert not lease.locked(folder), "of a scheduler's job the scheduler says whether it runs"
    assert run_folders.load(tmp_path, "small")[0]["state"].tolist() == ["done", "stopped"]


@pytest.mark.parametrize("name", ["events.jsonl", "lock", "artifacts", "x.json.PID.writing"])
def test_no_link_in_a_run_directory_is_written_through(tmp_path: Path, name: str) -> None:
    folder, secret = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    if name == "artifacts":
        secret.mkdir()
    else:
        secret.write_text("secret")
    (folder / name.replace("PID", str(os.getpid()))).symlink_to(secret)
    if name.endswith("writing"):
        files.write_bytes(b"content", folder / "x.json")
        assert (folder / "x.json").read_bytes() == b"content" and not (folder / "x.json").is_symlink()
    else:
        with pytest.raises((SuiteError, OSError), match="is a link"), lease.lock(folder):
            Journal(folder).artifact("layers.json", b"{}")
    assert secret.is_dir() or secret.read_text() == "secret"
    assert not secret.is_dir() or not list(secret.iterdir())


def test_a_checkpoint_takes_the_place_of_a_link_where_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "checkpoint.writing").symlink_to(tmp_path / "secret")
    record = checkpoint.save({"epoch": 1}, tmp_path / "checkpoint.pt")
    assert checkpoint.load(tmp_path / "checkpoint.pt", record["sha256"]) == {"epoch": 1}
    assert (tmp_path / "secret").read_text() == "secret" and not (tmp_path / "checkpoint.pt").is_symlink()


def test_no_link_beside_a_launch_or_a_run_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    launch = local_jobs.record(tmp_path, "here", [["0" * 16]])
    (launch.folder / "ended").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="is a link"):
        launch.note_ended("0" * 16)
    with pytest.raises(OSError, match="is a link"):
        files.open_to_append(launch.folder / "ended")
    assert (tmp_path / "secret").read_text() == "secret\n"
    (launch.folder / "ended").unlink()
    launch.note_ended("0" * 16)
    assert launch.open_jobs == []


def test_a_runs_folder_and_a_run_directory_that_are_links_are_used(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "runs").symlink_to("disk")
    (tmp_path / "runs" / "link").symlink_to("run")
    folder = tmp_path / "runs" / "link"
    with lease.lock(folder) as held:
        journal = Journal(folder, lease=held)
        journal.artifact("layers.json", b"{}")
        journal.finish("0" * 16, top1=1.0)
    assert (tmp_path / "disk" / "run" / "artifacts" / "layers.json").read_bytes() == b"{}"


def test_a_git_that_hangs_is_announced_and_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "git").write_text("#!/bin/bash\nexec sleep 100\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert waiting.ANNOUNCE_SECONDS < 15
    monkeypatch.setattr(waiting, "ANNOUNCE_SECONDS", 0.2)
    monkeypatch.setattr(provenance, "GIT_SECONDS", 1.0)
    began = time.monotonic()
    assert provenance.commit_and_diff() == {"commit": "unknown", "dirty": False, "diff": ""}
    assert not provenance.is_committed(tmp_path / "git")
    assert time.monotonic() - began < 2 * 1.0 + 3
    said = capsys.readouterr().err
    assert (
        f"git says what the code in {provenance.ROOT} is, for 1 s at most" in said and "given up" not in said
    )


def test_a_lock_is_held_through_the_file_that_is_opened(tmp_path: Path) -> None:
    with lease.lock(tmp_path), (tmp_path / "lock").open("a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
