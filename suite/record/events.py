"""The events of a journal as they are read: which of its lines count, all at once or as the file grows.

The suite and the analysis read journals by this file alone, so that both see the same run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from suite.recipe.errors import SuiteError
from suite.record import files, jsonl

LATEST = 1e11
"""No event is later, in seconds since 1970."""


MOST_COUNTED = 2**31
"""No step, attempt or number of an event is as large: tables hold them as 32-bit integers."""


MOST_BYTES = 512 * files.MIB
"""Of a journal that is read at once."""


def decode_events(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """What `examine_events` gives, of a journal's content."""
    lines = _Lines()
    *whole, last = content.split(b"\n")
    found = [event for line in whole if (event := lines.event(line)) is not None]
    return found + lines.unfinished(last), lines.damaged


class _Lines:
    """Decides which lines of one journal, given in their order, are events that count."""

    def __init__(self) -> None:
        self.damaged = self._newest = 0
        self._opener = jsonl.Opener()

    def event(self, line: bytes) -> dict[str, Any] | None:
        """The event of a line, without its newline; None where it does not count."""
        if not line:
            return None
        event = self._opener.record(line)
        if not _is_event(event):
            self.damaged += 1
            return None
        if event["attempt"] < self._newest:
            return None
        self._newest = event["attempt"]
        return event  # type: ignore[no-any-return]

    def unfinished(self, line: bytes) -> list[dict[str, Any]]:
        """The event of the last line, whose newline is still to be written, if it is whole already."""
        event = self._opener.unfinished(line)
        return [event] if _is_event(event) and event["attempt"] >= self._newest else []


class JournalReader:
    """Reads the journal in `folder` as it grows: of what was read before, nothing is read again but a line that was
    not finished. A journal that was replaced by another is read from its beginning."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "events.jsonl"
        self._seen: tuple[int, ...] = ()
        self._forget()

    def _forget(self) -> None:
        self._lines, self._end = _Lines(), 0
        self._whole: list[dict[str, Any]] = []
        self._unfinished: list[dict[str, Any]] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that count, as `examine_events` says."""
        return self._whole + self._unfinished

    @property
    def last(self) -> dict[str, Any]:
        """The last of them; empty before the first."""
        return (self._unfinished or self._whole[-1:] or [{}])[0]

    @property
    def damaged(self) -> int:
        """How many lines are damaged."""
        return self._lines.damaged

    def read_appended(self) -> bool:
        """Read what was appended since the last call; whether anything was. Raises SuiteError for a journal that is no
        regular file or cannot be read."""
        try:
            seen = _identity(self._file.lstat())
            if seen == self._seen:
                return False
            with files.open_regular(self._file) as stream:
                self._read(stream)
        except FileNotFoundError:
            if not self._seen:
                return False
            self._seen = ()
            self._forget()
        except OSError as error:
            raise unreadable(self._file, error) from None
        return True

    def _read(self, stream: BinaryIO) -> None:
        seen = _identity(os.fstat(stream.fileno()))
        if seen[:2] != self._seen[:2] or seen[2] < self._end:
            self._forget()
        if seen[2] - self._end > MOST_BYTES:
            raise OSError(f"has more than {MOST_BYTES // files.MIB} MiB")
        stream.seek(self._end)
        content = stream.read(seen[2] - self._end)
        *lines, last = content.split(b"\n")
        self._whole += [event for line in lines if (event := self._lines.event(line)) is not None]
        self._unfinished = self._lines.unfinished(last)
        self._end += len(content) - len(last)
        self._seen = seen


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    """(device, inode, bytes, time of the last change): what differs after a file was written to."""
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def unreadable(file: Path, error: OSError) -> SuiteError:
    """The error for a file of a run directory that cannot be used."""
    return SuiteError(f"{file} {error}; remove {file.parent} and launch the sweep again")


def read_finished(folder: Path) -> tuple[dict[str, Any], int]:
    """(the last event, how many lines are damaged) of a run that is done; a journal whose end is missing has one more.
    Where every line is what its checksum says, which is so but for a damaged disk and for older versions, only the
    last is decoded. Raises SuiteError as `examine_events` does."""
    try:
        content = files.read_bytes(f"{folder}/events.jsonl", MOST_BYTES)
    except FileNotFoundError:
        return {}, 0
    except OSError as error:
        raise unreadable(folder / "events.jsonl", error) from None
    if jsonl.is_whole(content):
        found, _ = decode_events(content[content.rfind(b"\n", 0, -1) + 1 :])
        if found and found[0]["event"] == "finished":
            return found[0], 0
    found, damaged = decode_events(content)
    damaged += not any(event["event"] == "finished" for event in found)
    return found[-1] if found else {}, damaged


def _is_event(event: Any) -> bool:
    """Whether a line is one that a Journal writes: of whatever else lies there, nothing reaches MLflow or a table."""
    if type(event) is not dict or type(event.get("event")) is not str:
        return False
    if not (_is_count(event.get("seq")) and _is_count(event.get("attempt"))):
        return False
    if event["event"] == "metrics":
        values = event.get("values")
        if type(values) is not dict or not _is_count(event.get("step")):
            return False
        if not all(name.isidentifier() and (v is None or is_number(v)) for name, v in values.items()):
            return False
    return is_number(event.get("time")) and 0 <= event["time"] < LATEST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_COUNTED


def is_number(value: Any) -> bool:
    """Whether MLflow and a table can hold it."""
    return type(value) in (int, float) and abs(value) < 1e300
