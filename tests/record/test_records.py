"""What is torn, late, not finite or of another version is left out of a record or refused."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from suite.recipe.errors import SuiteError
from suite.record.events import read_finished
from suite.record.journal import Journal, read_events, read_outcome


def test_a_torn_last_line_loses_itself_only(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.metrics(1, top1=50.0)
    first.metrics(2, top1=60.0)
    first.close()
    file = tmp_path / "events.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    second = Journal(tmp_path)
    second.metrics(2, top1=61.0)
    second.close()
    read = read_events(tmp_path)
    assert [(e["attempt"], e["values"]["top1"]) for e in read] == [(1, 50.0), (2, 61.0)]
    assert [e["seq"] for e in read] == [1, 3], "who read the second whole, before a crash, reads on"


def test_numbers_that_are_not_finite_are_null_in_the_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metrics(0, loss=float("nan"), top1=10.0)
    journal.finish("k", top1=10.0, loss=float("inf"))
    journal.close()
    text = (tmp_path / "events.jsonl").read_text() + (tmp_path / "outcome.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_outcome(tmp_path)["loss"] is None  # type: ignore[index]


def test_a_run_directory_of_another_version_or_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text('{"format": 99}')
    with pytest.raises(SuiteError, match="has format 99, this version reads 1; move it away"):
        read_outcome(tmp_path)
    (tmp_path / "outcome.json").write_text('{"format"')
    with pytest.raises(SuiteError, match="is damaged, or no JSON of a run; remove"):
        read_outcome(tmp_path)


def test_what_an_attempt_wrote_after_the_next_had_begun_is_left_out(tmp_path: Path) -> None:
    lines = [(1, 1), (2, 1), (3, 2), (3, 1), (4, 2)]
    recorded = [{"seq": seq, "time": 0.0, "attempt": attempt, "event": "x"} for seq, attempt in lines]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in recorded))
    assert [(e["seq"], e["attempt"]) for e in read_events(tmp_path)] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_a_disk_that_fills_up_takes_whole_lines_of_a_journal_or_none(small_disk: Path) -> None:
    folder = small_disk / "journal"
    folder.mkdir()
    journal = Journal(folder)
    journal.write("metrics", step=0, values={"top1": 50.0})
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(OSError, match="No space"):
        for step in range(1, 1000):
            journal.write("metrics", step=step, values={"top1": 50.0}, words="x" * (step % 97))
    assert step > 1 and (folder / "events.jsonl").read_bytes().endswith(b"}\n")
    (small_disk / "ballast").unlink()
    journal.write("metrics", step=step, values={"top1": 51.0})
    journal.close()
    found = read_events(folder)
    assert [event["step"] for event in found] == list(range(step + 1))
    assert [event["seq"] for event in found] == list(range(1, step + 2))
    shutil.rmtree(folder)


def test_every_bit_of_an_outcome_that_flips_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.finish("0123456789abcdef", top1=91.25, loss=0.5, checkpoint={"file": "checkpoint.pt", "bytes": 7})
    journal.close()
    file, folder = tmp_path / "outcome.json", tmp_path
    sound, whole = read_outcome(folder), file.read_bytes()
    assert sound is not None and "crc32" not in sound and sound["top1"] == 91.25
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(SuiteError, match=f"is damaged, or no JSON of a run; remove {folder} and launch"):
            read_outcome(folder)
    file.write_text(json.dumps(sound))
    assert read_outcome(folder) == sound, "older versions wrote no checksum"


def test_a_run_that_is_done_and_whose_journal_has_lost_its_end_counts_as_damaged(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metrics(1, top1=50.0)
    journal.finish("k", top1=50.0)
    journal.close()
    file = tmp_path / "events.jsonl"
    whole = file.read_bytes()
    assert read_finished(tmp_path)[1] == 0
    for count in (len(whole) // 2, whole.index(b"\n") + 1, 0):
        file.write_bytes(whole[:count])
        assert read_finished(tmp_path)[1] == 1
