"""What a launcher writes into the journals of runs that could not: that they failed, or were cancelled."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from suite.recipe.errors import SuiteError
from suite.record.cause import Cause
from suite.record.journal import Journal, read_events
from suite.record.lease import lock


def record_failure(folder: Path, cause: Cause, words: str) -> None:
    """Record in the journal of a run why it failed, unless its last event has that already, or another process runs it
    by now."""
    last = (read_events(folder) or [{"event": "none"}])[-1]
    if last["event"] == "failed" and last.get("cause") == cause:
        return
    with suppress(SuiteError), lock(folder) as lease:
        journal = Journal(folder, lease=lease)
        journal.write("failed", error=words, cause=cause, traceback="")
        journal.close()


def record_cancelled(folder: Path, job: str) -> None:
    """Record that a run was cancelled before it had begun; one that runs records by itself how it was stopped."""
    if read_events(folder):
        return
    with suppress(SuiteError), lock(folder) as lease:
        journal = Journal(folder, lease=lease)
        journal.write("cancelled", job=job)
        journal.close()


def exit_error(exit_status: int, log: str = "") -> str:
    """The error of a process that recorded none, with the last line of its `log`. A negative status is the signal that
    killed it, one above 128 is that as a shell has it."""
    number = -exit_status if exit_status < 0 else exit_status - 128
    try:
        end = f"was killed by {signal.Signals(number).name}"
    except ValueError:
        end = f"exited with status {exit_status}"
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    wrote = f"the last line that it wrote is {last!r}; " if last else ""
    return f"its process {end} and recorded no error; {wrote}logs KEY shows all it wrote"
