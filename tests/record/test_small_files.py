"""Small files of state that are torn or damaged: each is made anew, left out, or refused in a line with what to do."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
from pathlib import Path

import pytest

from slurm.attempts import ENDING, JobAttempt, Task
from slurm.cluster import Cluster
from slurm.sender import Sender
from suite.cli import running
from suite.launch import local_jobs
from suite.recipe.errors import SuiteError
from suite.record import provenance
from suite.record.failure import Failure, report_failure, reported_failure
from suite.record.files import Folders, write_bytes, write_json
from suite.record.keys import is_key, read_skipped
from suite.run import checkpoint

KEYS = ["0123456789abcdef", "fedcba9876543210"]
DAMAGES = {
    "empty": b"",
    "torn": b'["0123456789abcdef", "fed',
    "no text": b'["\xff"]',
    "too deep": b"[" * 100_000,
    "a number": b"7",
    "an object": b"{}",
    "a list of others": b'["../0123456789abcdef"]',
}
EACH = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


def test_a_file_is_on_disk_under_its_name_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content first, then the folder that has its new name."""
    synced = list[str]()
    monkeypatch.setattr(
        os,
        "fsync",
        lambda number: synced.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file"),
    )
    write_bytes(b"1", tmp_path / "content")
    checkpoint.save({}, tmp_path / "state.pt")
    assert synced == ["file", "folder"] * 2
    write_bytes(b"2", tmp_path / "content", sync=False)
    assert synced == ["file", "folder"] * 2 and (tmp_path / "content").read_bytes() == b"2"


def sender(runs: Path) -> Sender:
    return Sender(Folders(runs, runs), Cluster())


@EACH
def test_an_owner_that_is_damaged_gets_a_new_number_which_stays(tmp_path: Path, damage: bytes) -> None:
    whole = sender(tmp_path)._owner
    assert re.fullmatch("[0-9a-f]{32}", whole) and sender(tmp_path)._owner == whole
    file = tmp_path / "slurm" / "owner"
    file.write_bytes(damage)
    anew = sender(tmp_path)._owner
    assert re.fullmatch("[0-9a-f]{32}", anew) and anew != whole
    assert sender(tmp_path)._owner == anew == json.loads(file.read_bytes())


def test_an_owner_that_is_a_link_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "owner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SuiteError, match="owner is a link; move it away$"):
        _ = sender(tmp_path)._owner
    assert not (tmp_path / "elsewhere").exists()


@EACH
def test_a_list_of_cancelled_stages_that_is_damaged_is_refused_in_a_line_by_all_who_read_it(
    tmp_path: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = local_jobs.record(tmp_path, "here", [KEYS])
    task = Task(tmp_path / "slurm" / "suite-0" / "array.json", 3, tmp_path)
    task.record.parent.mkdir(parents=True)
    for file, read in (
        (launch.skip_list, lambda: launch.skipped),
        (launch.skip_list, lambda: launch.open_jobs),
        (task.skip_list, lambda: task.skipped),
        (task.skip_list, running._skipped),
    ):
        monkeypatch.setenv("SUITE_SKIPPED", str(file))
        file.unlink(missing_ok=True)
        assert read() in (set(), [KEYS])
        write_json(KEYS[:1], file)
        assert read() in ({KEYS[0]}, [KEYS[1:]])
        file.write_bytes(damage)
        with pytest.raises(SuiteError, match="is damaged; remove it and cancel them again") as refused:
            read()
        assert str(file) in str(refused.value) and "\n" not in str(refused.value)


def test_without_a_list_no_stage_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUITE_SKIPPED", raising=False)
    assert running._skipped() == read_skipped(tmp_path / "none.json") == set()


@pytest.mark.parametrize(
    "value", ["", 7, None, "0" * 15, "0" * 17, "0" * 16 + "\n", "../" + "0" * 13, "A" * 16]
)
def test_what_could_lead_elsewhere_is_no_key(value: object) -> None:
    assert not is_key(value) and is_key(KEYS[0])


@EACH
def test_a_rank_whose_report_is_damaged_has_failed_all_the_same(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "rank-2.failed").write_bytes(damage)
    assert reported_failure(tmp_path) == Failure(
        "rank 2: it failed; what it wrote in rank-2.failed is damaged", "code"
    )
    whole = {"time": 5.0, "rank": 1, "error": "boom", "cause": "memory", "traceback": ""}
    write_json(whole, tmp_path / "rank-1.failed")
    assert reported_failure(tmp_path) == Failure("rank 1: boom", "memory"), "a whole one counts first"


def test_a_rank_reports_what_another_reads(tmp_path: Path) -> None:
    report_failure(tmp_path, 3, Failure("boom", "disk", "lines"))
    assert reported_failure(tmp_path) == Failure("rank 3: boom", "disk", "lines")


@EACH
def test_a_line_of_an_attempt_that_is_damaged_is_left_out(tmp_path: Path, damage: bytes) -> None:
    task = Task(tmp_path / "array.json", 0, tmp_path)
    attempt = JobAttempt(0, "4711", "n1", 5.0, 0, {}, events={})
    begun = {name: value for name, value in dataclasses.asdict(attempt).items() if name not in ENDING}
    line = json.dumps(begun).encode()
    (tmp_path / "turns-0.jsonl").write_bytes(b"\n" + damage + b"\n" + line + b"\n")
    assert task.attempts == [attempt]


@EACH
def test_a_copy_of_the_code_whose_commit_is_damaged_says_so_in_a_line(
    tmp_path: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    whole = {"commit": "0123", "dirty": False, "diff": ""}
    write_json(whole, tmp_path / "commit.json")
    assert provenance.commit_and_diff() == whole
    (tmp_path / "commit.json").write_bytes(damage)
    remedy = f"{tmp_path}/commit.json of the copy of the code is damaged; launch again, which makes it anew"
    with pytest.raises(SuiteError, match=f"^{re.escape(remedy)}$"):
        provenance.commit_and_diff()
