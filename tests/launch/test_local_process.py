"""A clock that steps by an hour neither kills a job that saves, nor hides or invents why one ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import journals

from suite.launch import local_process
from suite.launch.local_process import Running, last_event
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
