"""Why a run failed, in a word, a line and a traceback; and how ranks tell each other."""

from __future__ import annotations

import errno
import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from suite import checkpoint
from suite.events import ReplacedError
from suite.train import DivergedError
from suite.values import SuiteError

BROKEN = ("uncorrectable ECC", "no CUDA-capable device", "busy or unavailable", "NVLink", "GPU is lost")
"""What CUDA says where a node, not the code, is at fault."""


REFUSED = (
    "can't allocate memory",
    "annot allocate memory",
    "failed to map segment",
    "can't start new thread",
)
"""What torch, the system, the loader of libraries and Python say where there is no memory left."""


@dataclass(frozen=True)
class Failure:
    """`cause` is for a launcher that may try again: "diverged", "memory", "disk", "node" or "code"; `error` is a line
    for people."""

    error: str
    cause: str
    traceback: str = ""


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
        elsewhere = told(folder, within_seconds=2)
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


def tell(folder: Path, rank: int, failure: Failure) -> None:
    """What a rank that writes no journal leaves when it fails, for rank 0 to record; not where one did already."""
    if told(folder) is None:
        content = {"time": time.time(), "rank": rank, **asdict(failure)}
        checkpoint.write_json(content, folder / f"rank-{rank}.failed")


def told(folder: Path, within_seconds: float = 0) -> Failure | None:
    """The first failure that another rank has told in this attempt, or tells presently; or None."""
    deadline = time.monotonic() + within_seconds
    while not (files := list(folder.glob("rank-*.failed"))):
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.1)
    first = min((json.loads(file.read_text()) for file in files), key=lambda content: float(content["time"]))
    return Failure(f"rank {first['rank']}: {first['error']}", first["cause"], first["traceback"])


@contextmanager
def survived(what: str) -> Iterator[None]:
    """What is recorded beside a result never costs it: where that fails, it is said, and the run goes on."""
    try:
        yield
    except ReplacedError:
        raise
    except Exception as error:
        print(f"{what} cannot be recorded: {of(error).error}; the run goes on", flush=True)
