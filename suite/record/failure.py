"""Why a run failed: the record that ranks leave for each other and for the journal."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from suite.record.cause import CAUSES, Cause
from suite.record.files import read_object, write_json


@dataclass(frozen=True)
class Failure:
    """`cause` is for a launcher that may try again; `error` is a line for people."""

    error: str
    cause: Cause
    traceback: str = ""


def report_failure(folder: Path, rank: int, failure: Failure) -> None:
    """What a rank that writes no journal leaves when it fails, for rank 0 to record; not where one did already."""
    if reported_failure(folder) is None:
        content = {"time": time.time(), "rank": rank, **asdict(failure)}
        write_json(content, folder / f"rank-{rank}.failed")


def reported_failure(folder: Path, within_seconds: float = 0) -> Failure | None:
    """The first failure that another rank has reported in this attempt, or soon reports; or None."""
    deadline = time.monotonic() + within_seconds
    while not (files := list(folder.glob("rank-*.failed"))):
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.1)
    return min(map(_read, files), key=lambda reported: reported[0])[1]


def _read(file: Path) -> tuple[float, Failure]:
    """When a rank reported a failure, in seconds since 1970, and which. A file that is damaged still says that the
    rank failed; it counts as the last."""
    content = read_object(file)
    try:
        reported = Failure(
            f"rank {content['rank']}: {content['error']}", content["cause"], content["traceback"]
        )
        if reported.cause not in CAUSES:
            raise ValueError
        return float(content["time"]), reported
    except (KeyError, TypeError, ValueError):
        rank = file.stem.removeprefix("rank-")
        return math.inf, Failure(f"rank {rank}: it failed; what it wrote in {file.name} is damaged", "code")
