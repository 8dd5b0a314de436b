"""The records of what was launched on this machine, in runs/local/: by them another process asks, and cancels."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.record import lease
from suite.record.files import open_to_append, read_object, write_json
from suite.record.keys import is_key, read_skipped


@dataclass(frozen=True)
class Launch:
    """One launch: `folder` is runs/local/ID. The launcher holds its lock as long as it works."""

    folder: Path

    @property
    def on(self) -> str:
        """The name of the launcher."""
        return str(self._content.get("on", ""))

    @property
    def jobs(self) -> list[list[str]]:
        """The keys of each job's stages; the first names the job, and its log lies in that stage's run directory. What
        cannot name a run directory is left out."""
        listed = self._content.get("jobs")
        jobs = [job for job in listed if isinstance(job, list)] if isinstance(listed, list) else []
        known = [[key for key in job if is_key(key)] for job in jobs]
        return [job for job in known if job]

    @property
    def _content(self) -> dict[str, Any]:
        return read_object(self.folder / "launch.json")

    @property
    def alive(self) -> bool:
        """Whether its launcher still works."""
        return lease.locked(self.folder)

    @property
    def began(self) -> float:
        """When it was written down, in seconds since 1970."""
        return int(self.folder.name.partition("-")[0]) / 1e9

    @property
    def process(self) -> str:
        """That of its launcher, in words."""
        return lease.holder(self.folder)

    @property
    def skip_list(self) -> Path:
        """The file with the stages that were cancelled: neither the launcher nor a job begins one of them."""
        return self.folder / "skipped.json"

    @property
    def skipped(self) -> set[str]:
        """The stages in that file. Raises SuiteError where it is damaged."""
        return read_skipped(self.skip_list)

    @property
    def open_jobs(self) -> list[list[str]]:
        """The stages of the jobs that wait or run, but for those that were cancelled."""
        file, skipped = self.folder / "ended", self.skipped
        ended = set(file.read_text(errors="replace").split()) if file.exists() else set()
        return [[key for key in job if key not in skipped] for job in self.jobs if job[0] not in ended]

    def note_ended(self, job: str) -> None:
        """Write down that a job has ended, or never starts."""
        with open_to_append(self.folder / "ended") as stream:
            stream.write(f"{job}\n".encode())

    def skip(self, keys: set[str]) -> None:
        """Put more stages on the list."""
        with lease.lock(self.folder / "cancelling"):
            write_json(sorted(self.skipped | keys), self.skip_list)


def record(runs: Path, on: str, jobs: Sequence[Sequence[str]]) -> Launch:
    """Write down a launch that begins."""
    folder = runs / "local" / f"{time.time_ns()}-{os.getpid()}"
    folder.mkdir(parents=True)
    write_json({"on": on, "jobs": [list(job) for job in jobs]}, folder / "launch.json")
    return Launch(folder)


def launches(runs: Path) -> list[Launch]:
    """All that were written down, the newest first."""
    files = sorted(runs.glob("local/*/launch.json"), reverse=True)
    return [Launch(file.parent) for file in files]


def process_of(folder: Path) -> int | None:
    """The process of this machine that runs the stage in the run directory `folder` and is no job of a scheduler.

    The lease names it by a number that may be that of another process here: of a container that has the machine's
    name, or because somebody else wrote it. It is the process only if it has the lock open.
    """
    if not lease.locked(folder):
        return None
    found = re.fullmatch(r"process (\d{1,10}) on (\S+)", lease.holder(folder))
    if not found or found[2] != os.uname().nodename:
        return None
    return int(found[1]) if _has_open(int(found[1]), folder / "lock") else None


def _has_open(process: int, file: Path) -> bool:
    """Whether a process has a file open, as far as this one may see: of another user's process it may not."""
    try:
        wanted = file.stat()
        numbers = os.listdir(f"/proc/{process}/fd")
    except OSError:
        return False
    for number in numbers:
        with suppress(OSError):
            found = os.stat(f"/proc/{process}/fd/{number}")
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False
