"""The run's journal: one JSON line an event, append only, the truth about a run.

MLflow, the status table and the analysis are views of it. Only the rank that writes makes one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from suite.recipe import FORMAT
from suite.recipe.errors import SuiteError
from suite.record import files, jsonl
from suite.record.events import JournalReader, is_number, unreadable
from suite.record.lease import ReplacedError, holder, lease_of

ARTIFACT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
"""The name of an artifact: never a path, never hidden."""


class Journal:
    """Appends events to `folder/events.jsonl`; on a rank that does not write, to nothing.

    Each start of a stage is a further attempt, counted from 1; what is measured of a run `afterwards` is none, and
    is recorded with the last. A number that is not finite is recorded as null. With a `lease`, as `lock` gives it,
    every write raises ReplacedError once another attempt has taken the directory.
    """

    def __init__(self, folder: Path, writes: bool = True, lease: str = "", afterwards: bool = False) -> None:
        self.folder, self.writes, self._lease = folder, writes, lease
        if not writes:
            return
        earlier, damaged = examine_events(folder)
        last = max((event["attempt"] for event in earlier), default=0)
        self.attempt = max(1, last) if afterwards else 1 + last
        self._stream = files.open_to_append(folder / "events.jsonl")
        torn = bool(self._stream.tell()) and not _ends_with_newline(folder / "events.jsonl")
        if torn:
            self._append("\n")
        # The numbers of damaged lines are not used again: what followed a journal may have seen them whole.
        self._earlier = [event["seq"] for event in earlier]
        self._next = 1 + damaged + torn + max(self._earlier, default=0)
        self._first, self._written = self._next, 0
        self._progress_at = 0.0
        (folder / "progress.json").unlink(missing_ok=True)
        for file in folder.glob("rank-*.failed"):
            file.unlink()

    def write(self, event: str, **fields: Any) -> None:
        """Append one event, at once on its way to the disk."""
        if not self.writes:
            return
        self._check_lease()
        line = {"seq": self._next, "time": time.time(), "attempt": self.attempt, "event": event, **fields}
        self._append(jsonl.sealed(line))
        self._next += 1
        self._written += 1

    def _append(self, line: str) -> None:
        """The whole line or nothing of it: a disk that is almost full takes half of one."""
        rest, before = line.encode(), os.fstat(self._stream.fileno()).st_size
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError:
            os.truncate(self._stream.fileno(), before)
            raise

    def metrics(self, step: int, **values: float) -> None:
        """Record `values` at `step` (the epoch, counted from 1)."""
        self.write("metrics", step=step, values=_finite(values))

    def artifact(self, name: str, content: bytes) -> None:
        """Keep a small file as `folder/artifacts/name`, whole or not at all, and record it.

        Raises SuiteError for a name that is none of a file."""
        if not self.writes:
            return
        if not re.fullmatch(ARTIFACT, name):
            raise SuiteError(f"artifact name {name!r} is unusable; use letters, digits, '-', '_' and '.'")
        self._check_lease()
        file = self.folder / "artifacts" / name
        file.parent.mkdir(exist_ok=True)
        if file.parent.is_symlink():
            raise SuiteError(f"{file.parent} is a link, which is not followed; remove it")
        files.write_bytes(content, file)
        digest = hashlib.sha256(content).hexdigest()
        self.write("artifact", file=f"artifacts/{name}", bytes=len(content), sha256=digest)

    @property
    def progress_due(self) -> bool:
        """Whether the last progress was recorded a second ago or more."""
        return self.writes and time.monotonic() - self._progress_at >= 1

    def progress(self, doing: str, part: float, **facts: float) -> None:
        """Say what the stage does, which part of it, 0 to 1, is done, and how it goes: at most once a second, in a
        file that may be lost."""
        if self.progress_due:
            self._progress_at = time.monotonic()
            self._check_lease()
            content = json.dumps({"doing": doing, "part": part, **_finite(facts)})
            files.write_bytes(content.encode(), self.folder / "progress.json", sync=False)

    def sync(self) -> None:
        """Put all that was written on the disk: what a checkpoint builds on is never younger than it."""
        if self.writes:
            self._check_lease()
            os.fsync(self._stream.fileno())

    @property
    def position(self) -> list[int]:
        """[the number of the next event, how many events count before it]: what a saved state builds on."""
        return [self._next, len(self._earlier) + self._written]

    def reaches(self, position: Sequence[int]) -> bool:
        """Whether the journal has all that a state of that `position` builds on: no line of it was lost or damaged
        since."""
        number, count = position
        own = min(self._written, max(0, number - self._first))
        return bool(sum(earlier < number for earlier in self._earlier) + own >= count)

    @property
    def replaced(self) -> bool:
        """Whether another attempt has taken the run directory."""
        return bool(self._lease) and lease_of(self.folder) != self._lease

    def _check_lease(self) -> None:
        if self.replaced:
            raise ReplacedError(f"{self.folder} was taken over by {holder(self.folder)}; this attempt ends")

    def finish(self, key: str, **outcome: Any) -> None:
        """Record the outcome; `outcome.json` moves into place last, its presence means done."""
        self.write("finished")
        self.sync()
        content = {"format": FORMAT, "key": key, "attempt": self.attempt, **_finite(outcome)}
        files.write_sealed_json(content, self.folder / "outcome.json")

    def close(self) -> None:
        """Close the file; the journal stays."""
        with suppress(OSError):  # what a full disk did not take was reported when it was written
            self._stream.close()


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All whole events of a run, in order. Left out are lines that are damaged, and what an attempt that was cut off
    still wrote after the next one had begun."""
    return examine_events(folder)[0]


def examine_events(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """What `read_events` gives, and how many lines are damaged: torn by a crash, changed on the disk, or no
    Journal's. Raises SuiteError for a journal that is no regular file."""
    reader = JournalReader(folder)
    reader.read_appended()
    return reader.events, reader.damaged


def counted_metrics(journal: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The metrics events that count, and how often a further attempt went back: what earlier attempts had
    recorded from its first step on counts no more."""
    kept: list[dict[str, Any]] = []
    rewinds = 0
    for event in journal:
        if event["event"] == "metrics":
            if kept and kept[-1]["attempt"] != event["attempt"]:
                before = len(kept)
                kept = [earlier for earlier in kept if earlier["step"] < event["step"]]
                rewinds += len(kept) < before
            kept.append(event)
    return kept, rewinds


def images_read(journal: Sequence[dict[str, Any]]) -> dict[str, str]:
    """By split, the SHA-256 of the images that the run read last; empty where a version did not record it."""
    return {str(e.get("split")): str(e.get("sha256", "")) for e in journal if e["event"] == "data"}


def threads_of(journal: Sequence[dict[str, Any]]) -> int | None:
    """On how many threads of a CPU the last attempt computed; None of a GPU, or where that was not recorded."""
    devices = [str(event.get("device", "")) for event in journal if event["event"] == "started"]
    found = re.search(r", (\d+) threads?$", devices[-1]) if devices else None
    return int(found[1]) if found else None


def run_seconds(journal: Sequence[dict[str, Any]]) -> float:
    """What all attempts took together, each from its first event to its last or to the one that says that it has
    finished, in seconds."""
    spans: dict[int, list[float]] = {}
    finished = set()
    for event in journal:
        if event["attempt"] not in finished:
            spans.setdefault(event["attempt"], [event["time"]] * 2)[1] = event["time"]
        if event["event"] == "finished":
            finished.add(event["attempt"])
    return float(sum(max(0.0, end - begin) for begin, end in spans.values()))


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """What the finished run in `folder` left, or None. Raises SuiteError for one of another version."""
    file = f"{folder}/outcome.json"  # a Path of each of thousands takes longer than to read it
    try:
        content = files.read_sealed_json(files.read_bytes(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(Path(file), error) from None
    except (ValueError, RecursionError):
        raise SuiteError(
            f"{file} is damaged, or no JSON of a run; remove {folder} and launch the sweep again"
        ) from None
    version = content.get("format")
    if version != FORMAT:
        raise SuiteError(
            f"run directory {folder} has format {version}, this version reads {FORMAT}; "
            f"move it away or choose another folder with --runs"
        )
    return content


def read_progress(folder: Path) -> dict[str, Any] | None:
    """The last progress that the run in `folder` recorded, or None."""
    content = files.read_object(folder / "progress.json")
    doing, part = content.get("doing"), content.get("part")
    if not isinstance(doing, str) or not isinstance(part, int | float) or part != part:
        return None
    known = {name: value for name, value in content.items() if value is None or is_number(value)}
    return {**known, "doing": files.printable(doing), "part": min(1.0, max(0.0, part))}
