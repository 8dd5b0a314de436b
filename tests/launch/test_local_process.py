"""A clock that steps by an hour neither kills a job that saves, nor hides or invents why one ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import journals

from suite.launch import local_process, user_files_check
from suite.launch.launched import last_launched
from suite.launch.launcher import made
from suite.launch.local_process import Running, last_event
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import Journal, read_events

STAGE = journals.stages(1)[0]
HOUR = 3600


def stepped(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    sound = time.time
    monkeypatch.setattr(time, "time", lambda: sound() + seconds)


def running(folder: Path) -> Running:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "job.log").touch()
    last = {STAGE.key: last_event(folder / STAGE.key)}
    return Running([STAGE], process, [0], folder / "job.log", 0, last)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_job_that_is_asked_to_end_has_its_time_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    killed = list[object]()
    monkeypatch.setattr(local_process, "kill_tree", killed.append)
    job = running(tmp_path)
    job.ask_to_end()
    stepped(monkeypatch, seconds)
    job.ask_to_end()
    assert not killed
    passed = time.monotonic() + local_process.SAVE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: passed)
    job.ask_to_end()
    assert killed == [job.process]
    job.process.wait(60)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_an_error_that_a_run_recorded_is_its_own_after_a_step_and_an_earlier_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    folder = tmp_path / STAGE.key
    folder.mkdir()
    Journal(folder).write("failed", error="of before", cause="code", traceback="")
    job = running(tmp_path)
    job.process.kill()
    stepped(monkeypatch, seconds)
    journal = Journal(folder)
    journal.write("started")
    job.record_end(tmp_path, -9)
    errors = [event["error"] for event in read_events(folder) if event["event"] == "failed"]
    assert len(errors) == 2 and errors[0] == "of before", "the process that was killed recorded none"
    Journal(folder).write("failed", error="its own", cause="code", traceback="")
    job.record_end(tmp_path, 1)
    assert read_events(folder)[-1].get("error") == "its own"
    job.process.wait(60)


@pytest.mark.parametrize("outcome", [None, b"", b'{"format": 1, "top1"'], ids=["none", "empty", "half"])
def test_a_run_directory_that_is_removed_or_damaged_meanwhile_ends_no_launch(
    tmp_path: Path, outcome: bytes | None
) -> None:
    """Errors say to remove it; the launcher, which reads it when the job ends, has other jobs."""
    job = running(tmp_path)
    local_process.kill_tree(job.process)
    job.log.unlink()
    if outcome is not None:
        (tmp_path / STAGE.key).mkdir()
        (tmp_path / STAGE.key / "outcome.json").write_bytes(outcome)
    job.record_end(tmp_path, -9)
    causes = [event["cause"] for event in read_events(tmp_path / STAGE.key)]
    assert causes == (["code"] if outcome is None else [])
    assert local_process.unfinished(tmp_path, {STAGE.key}) == ({STAGE.key} if outcome is None else set())


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "7", '{"on": 7, "options": {}, "keys": []}', '{"on": "here", "options": 7, "keys": []}',
     '{"on": "here", "options": {}, "keys": 7}', '{"on": "here", "options": {}, "keys": [], "more": 7}'],
)  # fmt: skip
def test_a_record_of_what_was_launched_that_is_none_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "launched").mkdir()
    (tmp_path / "launched" / "own.json").write_text(text)
    assert last_launched(tmp_path, "own") is None


@pytest.mark.parametrize(("name", "options"), [("here", {"workers": "x"}), ("slurm", {"cluster": 7})])
def test_an_option_in_it_that_is_none_is_an_error_in_a_line(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    with pytest.raises(SuiteError, match="--workers x is too few, or no number|cannot read 7"):
        made(name, Folders(tmp_path, tmp_path), **options)


def test_what_a_users_file_prints_may_be_of_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/bash\nprintf 'gr\\xfc\\xdfe\\n'; printf 'no build in gr\\xfcn.py\\n' >&2; exit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(user_files_check.user_files, "references", lambda rows: {"x"} if rows else set())
    monkeypatch.setattr(user_files_check.user_files, "keep", lambda rows, place: None)
    with pytest.raises(SuiteError, match="no build in gr\ufffdn.py"):
        user_files_check.check_user_files([STAGE], Folders(tmp_path, tmp_path))
