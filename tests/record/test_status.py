"""The state of a stage is one for the suite and the analysis, and is kept up to date from appended bytes alone."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import BinaryIO

import pytest
from fakes import journals
from fakes.journals import unsealed, write_run
from fakes.statuses import status_of

from analysis.read import run_folders
from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.record import events, files, lease
from suite.record.events import JournalReader
from suite.record.journal import Journal, examine_events, read_events
from suite.record.status import MANY, Statuses
from suite.sweeps.stored import save_sweep

STAGE = journals.stages(1)[0]


class Counted:
    """A file that adds the bytes read from it to `sizes`."""

    def __init__(self, stream: BinaryIO, sizes: list[int]) -> None:
        self.stream, self.sizes = stream, sizes

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def fileno(self) -> int:
        return self.stream.fileno()

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def read(self, most: int) -> bytes:
        content = self.stream.read(most)
        self.sizes.append(len(content))
        return content


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that each reading of a journal took, in order."""
    found: list[int] = []
    original = files.open_regular
    monkeypatch.setattr(events.files, "open_regular", lambda path: Counted(original(path), found))
    return found


def begin(runs: Path, stage: Stage, *last: str) -> Journal:
    """The open journal of a run that started, and wrote the events `last`."""
    (runs / stage.key).mkdir(parents=True, exist_ok=True)
    journal = Journal(runs / stage.key)
    for event in ("started", *last):
        journal.write(event, **({"error": "boom\nand more", "cause": "code"} if event == "failed" else {}))
    return journal


@pytest.mark.parametrize(
    ("last", "held", "state"),
    [
        (None, False, "pending"),
        (None, True, "running"),  # it holds the lock, and has written nothing yet
        ("metrics", False, "stopped"),
        ("metrics", True, "running"),
        ("failed", False, "failed"),
        ("failed", True, "running"),  # started again, before the first event of its new attempt
        ("finished", False, "stopped"),  # killed before its outcome was written
        ("cancelled", False, "stopped"),
    ],
)
def test_the_suite_and_the_analysis_give_a_stage_the_same_state(
    tmp_path: Path, last: str | None, held: bool, state: str
) -> None:
    save_sweep(tmp_path, "one", {}, [STAGE])
    folder = tmp_path / STAGE.key
    if last == "metrics":
        begin(tmp_path, STAGE).metrics(1, top1=50.0)
    elif last:
        begin(tmp_path, STAGE, last).close()
    for _ in range(2):  # the second time with what the first left
        if held:
            with lease.lock(folder):
                now, table = status_of(STAGE, tmp_path), run_folders.load(tmp_path, "one")[0]
        else:
            now, table = status_of(STAGE, tmp_path), run_folders.load(tmp_path, "one")[0]
        assert (now.state, table["state"].tolist()) == (state, [state])
        assert bool(now.error) == (state == "failed") and table["error"].notna().tolist() == [bool(now.error)]


def test_of_a_growing_journal_only_what_was_appended_is_read(tmp_path: Path, sizes: list[int]) -> None:
    journal, statuses = begin(tmp_path, STAGE), Statuses(tmp_path)
    file = tmp_path / STAGE.key / "events.jsonl"
    before, total = 0, 0
    for epoch in range(1, 20):
        for _ in range(epoch % 3):
            journal.metrics(epoch, train_loss=1.0 / epoch, top1=float(epoch))
        now = statuses.of(STAGE)
        assert now.journal == read_events(file.parent)
        sizes.pop()  # of read_events
        total += file.stat().st_size - before
        before = file.stat().st_size
        assert sum(sizes) == total
    assert sum(sizes) == file.stat().st_size and len(sizes) == 1 + 2 * 6
    assert statuses.of(STAGE) is now, "nothing has changed"
    write_run(tmp_path, STAGE)
    assert statuses.of(STAGE).state == "done"


@pytest.mark.parametrize("seed", range(20))
def test_a_journal_read_in_pieces_of_any_size_gives_the_events_of_the_whole(
    tmp_path: Path, seed: int, sizes: list[int]
) -> None:
    """With torn lines, a further attempt, and lines of an older version before those with a checksum."""
    write_run(tmp_path, STAGE)
    file = tmp_path / STAGE.key / "events.jsonl"
    if seed % 2:
        unsealed(file)
    (file.parent / "outcome.json").unlink()
    write_run(tmp_path, STAGE, attempts=2)
    content, drawn = file.read_bytes(), random.Random(seed)
    file.write_bytes(b"")
    reader, place, reread = JournalReader(file.parent), 0, 0
    while place < len(content):
        size = drawn.choice((1, 7, 60, 400, 2000))
        with file.open("ab") as stream:
            stream.write(content[place : place + size])
        place += size
        sizes.clear()
        assert reader.read_appended()
        assert sizes == [min(place, len(content)) - reread]
        reread = content.rfind(b"\n", 0, place) + 1  # what follows is not finished
        assert (reader.events, reader.damaged) == examine_events(file.parent)
        assert reader.last == (reader.events or [{}])[-1]
        assert not reader.read_appended()
    assert reader.damaged == 1 and max(event["attempt"] for event in reader.events) == 3


def test_a_line_that_was_cut_back_and_written_anew_is_read_anew(tmp_path: Path) -> None:
    """A disk that is almost full takes half a line, which the journal then takes back."""
    journal = begin(tmp_path, STAGE)
    reader, file = JournalReader(tmp_path / STAGE.key), tmp_path / STAGE.key / "events.jsonl"
    size = file.stat().st_size
    with file.open("ab") as stream:
        stream.write(b'{"seq": 2, "time": 17')
    assert reader.read_appended() and len(reader.events) == 1
    os.truncate(file, size)
    journal.metrics(1, top1=50.0)
    assert reader.read_appended() and reader.damaged == 0
    assert reader.events == read_events(file.parent) and len(reader.events) == 2


def test_a_run_directory_that_was_removed_is_pending_and_its_successor_is_read_from_the_beginning(
    tmp_path: Path,
) -> None:
    begin(tmp_path, STAGE, "failed").close()
    for many in (1, MANY):
        stages, statuses = journals.stages(many), Statuses(tmp_path)
        assert statuses.of_all(stages)[0].state == "failed"
        shutil.rmtree(tmp_path / STAGE.key)
        assert statuses.of_all(stages)[0].state == "pending" and not statuses.of_all(stages)[0].journal
        begin(tmp_path, STAGE, "failed").close()
        now = statuses.of_all(stages)[0]
        assert now.state == "failed" and now.journal == read_events(now.folder)


@pytest.mark.parametrize("many", [1, 2 * MANY])
def test_of_a_stage_that_is_done_nothing_is_looked_at_again(tmp_path: Path, many: int) -> None:
    stages, statuses = journals.stages(many), Statuses(tmp_path)
    for stage in stages[: many // 2 + 1]:
        write_run(tmp_path, stage)
    before = statuses.of_all(stages)
    shutil.rmtree(tmp_path)
    after = statuses.of_all(stages)
    assert [now.state for now in after].count("done") == many // 2 + 1
    assert all(now is then for now, then in zip(after, before, strict=True))


def test_of_a_finished_run_the_status_tells_what_its_whole_journal_does(tmp_path: Path) -> None:
    """Its last event alone is decoded, but for a damaged journal and that of an older version."""
    write_run(tmp_path, STAGE, attempts=2)
    file = tmp_path / STAGE.key / "events.jsonl"
    whole = file.read_bytes().replace(
        next(line for line in file.read_bytes().splitlines(True) if b'"seq": 99' in line), b""
    )
    for content in (
        file.read_bytes(),
        whole,
        whole[:-1],
        whole[:-9],
        whole.replace(b'"top1": 52.0', b'"top1": 92.0'),
    ):
        file.write_bytes(content)
        read, damaged = examine_events(file.parent)
        damaged += read[-1]["event"] != "finished"  # its end is missing
        now = status_of(STAGE, tmp_path)
        assert (now.last, now.damaged, now.journal) == (read[-1], damaged, read)
        assert now.alive_at == read[-1]["time"] and now.epochs == f"{journals.EPOCHS}/{journals.EPOCHS}"
    file.write_bytes(whole)
    unsealed(file)
    assert status_of(STAGE, tmp_path).last["event"] == "finished"
    file.unlink()
    assert status_of(STAGE, tmp_path).state == "done" and status_of(STAGE, tmp_path).age_seconds is None


def test_a_journal_that_is_a_link_or_a_pipe_is_named_and_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / STAGE.key
    folder.mkdir()
    for make, reason in (
        (os.mkfifo, "is no regular file"),
        (lambda at: at.symlink_to("/dev/zero"), "is a link"),
    ):
        make(folder / "events.jsonl")
        with pytest.raises(
            SuiteError, match=rf"events\.jsonl {reason}; remove .* and launch the sweep again"
        ):
            status_of(STAGE, tmp_path)
        (folder / "events.jsonl").unlink()
