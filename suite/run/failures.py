"""Why a run failed: its cause in one word, its error in one line, its traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from suite.recipe.errors import SuiteError
from suite.record.cause import cause_of
from suite.record.failure import Failure, reported_failure
from suite.record.lease import ReplacedError
from suite.run import checkpoint

LOST_PEER = ("closed by peer", "Connection reset", "remote process exited or there was a network error")
"""What gloo and NCCL say where another rank is gone."""


def of(error: Exception) -> Failure:
    """The failure of an exception that is being handled."""
    lines = str(error).strip().splitlines() or [""]
    line = lines[0] if isinstance(error, SuiteError) else f"{type(error).__name__}: {lines[0]}"
    return Failure(line, cause_of(error=error) or "code", traceback.format_exc())


def explained(error: Exception, folder: Path, world_size: int) -> Failure:
    """The failure of an exception in the rank that records, or that of the rank that caused it, with what to do."""
    found = of(error)
    if world_size > 1 and not isinstance(error, SuiteError):
        elsewhere = reported_failure(folder, within_seconds=2)
        if elsewhere:
            found = elsewhere
        elif any(words in found.error for words in LOST_PEER):
            words = f"another rank ended without a message, perhaps killed ({found.error})"
            found = replace(found, error=words)
    if found.cause == "diverged":
        whole = checkpoint.resumable(folder)
        left = f"the last good state is {whole[0].name}" if whole else "no state was saved before it"
        return replace(found, error=f"{found.error}; {left}")
    if found.cause == "disk":
        what = (
            "is full; free some space"
            if "Read-only" not in found.error
            else "is read-only; have it mounted anew"
        )
        remedy = f"{folder.parent} {what}, and the same command goes on"
        return replace(found, error=f"{found.error}: {remedy}")
    return found


@contextmanager
def survived(what: str) -> Iterator[None]:
    """What is recorded beside a result never costs it: where that fails, a line is printed, and the run goes on."""
    try:
        yield
    except ReplacedError:
        raise
    except Exception as error:
        print(f"{what} cannot be recorded: {of(error).error}; the run goes on", flush=True)
