"""A journal's lines tell whether they are what was written, to the suite and to the analysis alike."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from fakes import journals
from fakes.journals import write_run
from fakes.statuses import status_of

from analysis.read.curves import read_journal
from suite.cli.main import main
from suite.recipe.errors import SuiteError
from suite.record import jsonl
from suite.record.files import write_bytes
from suite.record.journal import Journal, counted_metrics, examine_events, read_events
from suite.sweeps.stored import save_sweep

STAGE = journals.stages(1)[0]


def agree(folder: Path) -> int:
    """Whether the analysis counts what the suite counts; how many points that are."""
    read, recorded = read_events(folder), read_journal(folder)
    assert dict(recorded.last) == (read[-1] if read else {})
    counted: dict[int, dict[str, float]] = {}
    for event in counted_metrics(read)[0]:
        counted.setdefault(event["step"], {}).update(event["values"])
    curve = recorded.curve
    if not any("train_loss" in values for values in counted.values()):
        assert curve is None
        return 0
    assert curve is not None and curve.epochs.tolist() == sorted(counted)
    for name in ("train_loss", "top1"):
        wanted = [counted[step].get(name, np.nan) for step in sorted(counted)]
        np.testing.assert_array_equal(curve.values[name], np.array(wanted, np.float32))
    return sum(map(len, counted.values()))


@pytest.mark.parametrize("apart", [61, pytest.param(1, marks=pytest.mark.long)])
def test_a_changed_byte_costs_its_lines_and_changes_no_value_whichever_byte_it_is(
    apart: int, tmp_path: Path
) -> None:
    write_run(tmp_path, STAGE)
    file = tmp_path / STAGE.key / "events.jsonl"
    whole, before = file.read_bytes(), read_events(file.parent)
    assert examine_events(file.parent) == (before, 0) and agree(file.parent) == journals.EPOCHS * 7
    first, silent = whole.index(b"\n"), 0
    for place in range(0, len(whole) - 1, apart):
        for changed in {whole[place] ^ 1, ord("\n"), 0xFF} - {whole[place]}:
            file.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
            read, damaged = examine_events(file.parent)
            assert all(any(event.items() >= old.items() for old in before) for event in read)
            if (
                not damaged
            ):  # the first line's mark: it passes for an older version's, whose facts are the same
                assert first - 22 <= place < first and len(read) == len(before)
                silent += 1
        agree(file.parent)
    assert len(whole) > 2000 and silent < 22


def test_an_older_versions_journal_is_read_and_gone_on_with(tmp_path: Path) -> None:
    write_run(tmp_path, STAGE)
    file = tmp_path / STAGE.key / "events.jsonl"
    before = read_events(file.parent)
    journals.unsealed(file)
    assert b"crc32" not in file.read_bytes()
    assert examine_events(file.parent) == (before, 0) and agree(file.parent) == journals.EPOCHS * 7
    later = Journal(file.parent)
    later.metrics(2, top1=99.0, train_loss=0.1)
    later.close()
    assert read_events(file.parent)[:-1] == before and agree(file.parent) == 7 + 2
    with file.open("a") as stream:
        stream.write(json.dumps({**before[-1], "seq": 99, "attempt": 9}) + "\n")
    assert examine_events(file.parent)[1] == 1, "after a line with a checksum each has one"
    assert agree(file.parent) == 7 + 2


def test_the_numbers_of_damaged_lines_are_not_used_again(tmp_path: Path) -> None:
    """A sync may have seen them whole, and takes what has a greater number for news."""
    journal = Journal(tmp_path)
    journal.metrics(1, top1=1.0)
    journal.metrics(2, top1=2.0)
    journal.close()
    file = tmp_path / "events.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"top1": 2.0', b'"top1": 7.0'))
    journal = Journal(tmp_path)
    journal.metrics(2, top1=2.0)
    journal.close()
    assert [event["seq"] for event in read_events(tmp_path)] == [1, 3]


def test_status_and_sync_say_how_many_lines_are_damaged_and_where(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(database)
    save_sweep(tmp_path, "demo", {}, [STAGE])
    write_run(tmp_path, STAGE)
    assert main(["status", "demo", "--runs", str(tmp_path)]) == 0
    assert "damaged" not in capsys.readouterr().out
    file = tmp_path / STAGE.key / "events.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"top1": 52.0', b'"top1": 92.0'))
    assert status_of(STAGE, tmp_path).damaged == 1
    for command in ("status", "sync"):
        assert (
            main([command, "demo", "--runs", str(tmp_path), *(["--report", "none"] * (command == "sync"))])
            == 0
        )
        said = f"1 damaged line, not counted, in the journals of {STAGE.key}"
        assert said in capsys.readouterr().out


def test_a_state_fits_a_journal_that_has_all_it_builds_on(tmp_path: Path) -> None:
    """Of a torn last line that was written after the state, nothing is missed; of any other line, all is."""
    first = Journal(tmp_path)
    for step in (1, 2, 3):
        first.metrics(step, top1=50.0 + step)
    position = first.position
    assert first.reaches(position)
    first.metrics(4, top1=54.0)
    first.close()
    file = tmp_path / "events.jsonl"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = {
        "torn behind the state": (whole[:-9], True),
        "torn before it": (b"".join(lines[:3])[:-9], False),
        "a line that is gone": (b"".join(lines[:1] + lines[2:]), False),
        "a bit": (whole.replace(b'"top1": 52.0', b'"top1": 53.0'), False),
        "nothing left": (b"", False),
    }
    for what, (content, fits) in damaged.items():
        file.write_bytes(content)
        journal = Journal(tmp_path)
        journal.metrics(4, top1=54.0)
        assert journal.reaches(position) == fits, what
        assert journal.reaches(journal.position), "what this attempt saves builds on what it has"
        journal.close()
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".hidden", "", "a\nb", "x" * 101])
def test_no_artifact_has_a_name_that_leaves_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(SuiteError, match="is unusable"):
        Journal(tmp_path).artifact(name, b"")
    assert [file.name for file in tmp_path.iterdir()] == ["events.jsonl"]


def test_a_line_is_json_and_holds_what_it_was_given() -> None:
    record = {"event": "failed", "error": 'a "quoted", \u20ac line\nand', "values": {"crc32": None}}
    line = jsonl.sealed(record)
    assert line.count("\n") == 1 and json.loads(line).items() >= record.items()
    assert list(jsonl.opened(line.encode() * 2 + line.encode()[:-5])) == [record, record]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_stops_a_writing_leaves_nothing_half_written(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or Ctrl-C. Of what is replaced whole: the content of before stays, and no other file."""
    write_bytes(b"before", tmp_path / "facts.json")

    def stopped(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(type(error)):
        write_bytes(b"after", tmp_path / "facts.json")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]
