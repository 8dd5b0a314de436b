"""A runs folder that others use too: another user's, and one with the directories of many sweeps."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import journals
from fakes.journals import write_run

from suite.cli.main import main
from suite.record import status
from suite.record.status import Statuses
from suite.sweeps.stored import save_sweep

NOBODY = 65_534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A runs folder that everybody may read, with a sweep of which one stage is done."""
    folder = Path(tempfile.mkdtemp(prefix="suite-shared-"))
    folder.chmod(0o755)
    stages = journals.stages(3)
    save_sweep(folder, "demo", {}, stages)
    write_run(folder, stages[0])
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_another_user_sees_the_status_and_is_told_what_it_has_no_right_to(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["status", "demo", "--runs", str(shared)])  # imports what the other user may have no right to read
    capsys.readouterr()
    before = sorted(shared.rglob("*"))
    os.seteuid(NOBODY)
    try:
        assert main(["status", "demo", "--runs", str(shared)]) == 0
        assert "3 stages: 1 done, 2 pending" in capsys.readouterr().out
    finally:
        os.seteuid(0)
    assert sorted(shared.rglob("*")) == before
    shared.chmod(0o700)
    os.seteuid(NOBODY)
    try:
        assert main(["status", "demo", "--runs", str(shared)]) == 2
    finally:
        os.seteuid(0)
    said = capsys.readouterr().err
    assert f"error: {shared}/" in said and "cannot be read or written by this user; have its owner" in said
    assert said.count("\n") == 1, "no traceback"


@pytest.mark.parametrize("others", [200, pytest.param(100_000, marks=pytest.mark.long)])
def test_directories_of_other_sweeps_are_listed_once_and_not_opened(
    shared: Path, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(others):
        (shared / f"{number:016x}").mkdir()
    listed, listdir = list[Path](), os.listdir
    monkeypatch.setattr(status, "MANY", 2)
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    found = Statuses(shared).of_all(journals.stages(3))
    assert [now.state for now in found] == ["done", "pending", "pending"]
    assert listed == [shared]
