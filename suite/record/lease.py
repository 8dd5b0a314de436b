"""One process at a time runs a stage: the lock and the lease of a run directory."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from suite.recipe.errors import SuiteError
from suite.record.files import open_regular, open_to_append, printable, read_bytes, write_bytes
from suite.record.waiting import announced, no_locks

HELD = (errno.EWOULDBLOCK, errno.EACCES)
"""What flock says of a file that somebody else holds; anything else means that it does not know."""


TRIES = 20
"""How often a process that starts a stage asks for its run directory, 50 ms apart."""


TAKEOVER_SECONDS = 60.0
"""How long a job waits for what is left of an earlier attempt of it to notice that it has been replaced."""


class ReplacedError(SuiteError):
    """Another attempt has taken the run directory; this one must leave it alone and end."""


@contextmanager
def lock(folder: Path) -> Iterator[str]:
    """Hold the run directory, so that one process at a time runs a stage; freed when the process ends. Gives the lease
    that a Journal checks.

    Raises SuiteError where another process holds it, and where the disk has no locks. But a job of a scheduler takes
    it from an earlier job: the scheduler runs each once, so that one can only be what goes on on a node that it lost
    sight of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job = os.environ.get("SUITE_JOB", "")
    with open_to_append(folder / "lock") as stream:
        # `locked` holds the file for a moment when somebody checks: only what lasts is another process.
        try:
            free = _obtained(stream, TRIES * 0.05)
        except OSError as error:
            if not job:
                raise no_locks(folder, error) from None
            free = True  # the scheduler runs each job once, and the lease keeps out what it has lost sight of
        if _is_earlier_attempt(job, lease_of(folder)):
            raise ReplacedError(f"{folder} was taken over by {holder(folder)}; this attempt ends")
        if not free and not (job and ", job " in holder(folder)):
            raise SuiteError(f"{folder} is being run by {holder(folder)}; wait for it, or stop it first")
        me = f"process {os.getpid()} on {os.uname().nodename}{job and f', job {job}'}"
        lease = f"{me}, {time.time_ns()}"
        write_bytes(lease.encode(), folder / "lease", sync=False)
        if not free:  # who does not notice in time hangs, and is stopped by the lease when it wakes up
            with announced(
                f"an earlier attempt still holds {folder}; it has {TAKEOVER_SECONDS:.0f} s to end"
            ):
                _obtained(stream, TAKEOVER_SECONDS)
        yield lease


def _obtained(stream: IO[bytes], seconds: float) -> bool:
    """Whether the lock of an open file could be had in time. Raises OSError where the disk has no locks."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in HELD:
                raise
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def _is_earlier_attempt(job: str, lease: str) -> bool:
    """Whether `job`, as `12.0`, is an earlier attempt of the job that holds the lease, as `..., job 12.1, ...`."""
    found = re.search(r", job (\d+)\.(\d+),", lease)
    if not found or not re.fullmatch(r"\d+\.\d+", job):
        return False
    number, _, attempt = job.partition(".")
    return number == found[1] and int(attempt) < int(found[2])


def lease_of(folder: Path) -> str:
    """That of the process that runs the stage in `folder`, or of the one that did last; empty before the first."""
    try:
        return read_bytes(folder / "lease").decode(errors="replace")
    except OSError:
        return ""


def holder(folder: Path) -> str:
    """The process that runs the stage in `folder`, in words, or the one that did last."""
    return printable(lease_of(folder).rpartition(", ")[0]) or "another process"


def locked(folder: Path) -> bool:
    """True while a process on this machine runs the stage in `folder`. Raises SuiteError where the disk has no locks,
    unless the last one was of a job of a scheduler, which knows itself what runs."""
    try:
        stream = open_regular(folder / "lock")
    except OSError:
        return False
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD and ", job " not in holder(folder):
                raise no_locks(folder, error) from None
            return error.errno in HELD
    return False
