"""Why a run failed: its cause in one word, its error in one line, its traceback."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from suite.recipe.errors import SuiteError
from suite.record.failure import Failure, reported_failure
from suite.record.lease import ReplacedError
from suite.run import checkpoint
from suite.train.tally import DivergedError

BROKEN = ("uncorrectable ECC", "no CUDA-capable device", "busy or unavailable", "NVLink", "GPU is lost")
"""What CUDA says where a node, not the code, is at fault."""


REFUSED = (
    "can't allocate memory",
    "annot allocate memory",
    "failed to map segment",
    "can't start new thread",
)
"""What torch, the system, the loader of libraries and Python say where there is no memory left."""


def of(error: Exception) -> Failure:
    """The failure of an exception that is being handled."""
    lines = str(error).strip().splitlines() or [""]
    line = lines[0] if isinstance(error, SuiteError) else f"{type(error).__name__}: {lines[0]}"
    return Failure(line, _cause(error), traceback.format_exc())


def _cause(error: Exception) -> str:
    if isinstance(error, DivergedError):
        return "diverged"
    refused = any(words in str(error) for words in REFUSED)
    if refused or isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk"
    return "node" if any(words in str(error) for words in BROKEN) else "code"


def explained(error: Exception, folder: Path, world_size: int) -> Failure:
    """The failure of an exception in the rank that records, or that of the rank that caused it, with what to do."""
    found = of(error)
    if world_size > 1 and not isinstance(error, SuiteError):
        elsewhere = reported_failure(folder, within_seconds=2)
        if elsewhere:
            found = elsewhere
        elif "closed by peer" in found.error or "Connection reset" in found.error:
            words = f"another rank ended without a word, as when it is killed ({found.error})"
            found = replace(found, error=words)
    if found.cause == "diverged":
        whole = checkpoint.resumable(folder)
        left = f"the last good state is {whole[0].name}" if whole else "no state was saved before it"
        return replace(found, error=f"{found.error}; {left}")
    if found.cause == "disk":
        remedy = f"{folder.parent} is full; free some space, and the same command goes on"
        return replace(found, error=f"{found.error}: {remedy}")
    return found


@contextmanager
def survived(what: str) -> Iterator[None]:
    """What is recorded beside a result never costs it: where that fails, it is said, and the run goes on."""
    try:
        yield
    except ReplacedError:
        raise
    except Exception as error:
        print(f"{what} cannot be recorded: {of(error).error}; the run goes on", flush=True)
