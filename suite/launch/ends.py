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
    """Record in the journal of a run why it failed, unless its last event says so already, or another process runs it
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


def ended_without_a_word(exit_status: int, log: str = "") -> str:
    """The error of a process that left no message, with the last line of its `log`. A negative status is the signal
    that killed it, one above 128 is that as a shell has it."""
    number = -exit_status if exit_status < 0 else exit_status - 128
    try:
        by = f"killed by {signal.Signals(number).name}"
    except ValueError:
        by = f"with status {exit_status}"
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    wrote = f"it wrote at last {last!r}; " if last else ""
    return f"its process ended without a word, {by}; {wrote}logs KEY shows all it wrote"
