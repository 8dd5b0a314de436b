"""Says what a process waits for, where that takes long, and gives up where it takes too long."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from suite.recipe.errors import SuiteError

ANNOUNCE_SECONDS = 10.0
"""After which a wait is announced."""

LOCK_SECONDS = 600.0
"""How long a process waits for another one's lock."""


@contextmanager
def announced(words: str, ends_after: float | None = None, *, ends: bool = True) -> Iterator[None]:
    """Print `words`, what this waits for, to standard error where it lasts longer than ANNOUNCE_SECONDS.

    After `ends_after` seconds the process ends with status 1, since nothing else ends a wait inside a library. Where
    the caller ends the wait itself by then, `ends` is False, and the time is only printed.
    """
    over = threading.Event()

    def watch() -> None:
        if over.wait(ANNOUNCE_SECONDS):
            return
        limit = f", for {ends_after:.0f} s at most" if ends_after else ""
        print(f"{words}{limit}", file=sys.stderr, flush=True)
        if ends_after and ends and not over.wait(ends_after - ANNOUNCE_SECONDS):
            print(f"error: after {ends_after:.0f} s, {words}; given up", file=sys.stderr, flush=True)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


class NoLocksError(SuiteError):
    """A disk cannot say who holds a file, such as NFS without its lock service."""


def no_locks(folder: str | Path, error: OSError) -> NoLocksError:
    """The error for a folder on such a disk."""
    return NoLocksError(
        f"{folder} has no locks ({error.strerror}), so that two processes could do the same work at once; choose a "
        f"disk that has with --runs, or have it mounted with flock"
    )


def lock_exclusively(stream: IO[Any], words: str) -> None:
    """Hold the lock of an open file. `words` are what a wait is announced by, such as "another launch is at work".

    Raises SuiteError after LOCK_SECONDS, and where the disk has no locks.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with announced(words):
        while True:
            try:
                return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SuiteError(
                        f"after {LOCK_SECONDS:.0f} s, {words}; end that process, or try again later"
                    ) from None
                time.sleep(0.05)
            except OSError as error:
                raise no_locks(os.path.dirname(stream.name), error) from None
