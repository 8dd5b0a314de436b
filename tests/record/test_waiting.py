"""A wait says what it waits for, and has a limit."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import ROOT

from suite.recipe.errors import SuiteError
from suite.record import waiting
from suite.record.waiting import announced, lock_exclusively


def test_a_wait_is_announced_once_and_a_short_one_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert waiting.ANNOUNCE_SECONDS <= 15
    with announced("sbatch has not answered"):
        pass
    monkeypatch.setattr(waiting, "ANNOUNCE_SECONDS", 0.01)
    with announced("squeue has not answered"):
        time.sleep(0.3)
    assert capsys.readouterr().err == "squeue has not answered\n"


def test_a_wait_inside_a_library_ends_with_its_limit() -> None:
    program = """
import time
from suite.record import waiting
waiting.ANNOUNCE_SECONDS = 0.01
with waiting.announced("this waits for others", 0.1):
    time.sleep(600)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[1] == "error: after 0 s, this waits for others; given up"


def test_a_lock_of_another_process_is_announced_and_waited_for_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "ANNOUNCE_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "LOCK_SECONDS", 0.3)
    with (tmp_path / "lock").open("a") as mine, (tmp_path / "lock").open("a") as other:
        lock_exclusively(mine, "nobody is at work")
        with pytest.raises(SuiteError, match="after 0 s, another launch is at work; end that process"):
            lock_exclusively(other, "another launch is at work")
        assert "another launch is at work\n" in capsys.readouterr().err
        fcntl.flock(mine, fcntl.LOCK_UN)
        lock_exclusively(other, "another launch is at work")
