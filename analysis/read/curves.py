"""One pass over a run's journal: its attempts, its hours, its data and its training curve."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from analysis.read import files

Floats: TypeAlias = NDArray[np.float32]
MOST = 512 * files.MIB
LARGEST = 1e30
METRICS = ("train_loss", "train_top1", "loss", "top1")
SEAL = b', "crc32": "'
"""What stands between a line's record and its checksum, CRC-32 of all bytes before, in eight hex digits."""


@dataclass(frozen=True)
class Curve:
    """What a training told by epoch. `epochs` ascend, counted from 1; each of METRICS has a value for each of them,
    NaN where none was told or it was not finite: losses in nats, top1 in percent."""

    epochs: NDArray[np.int32]
    values: Mapping[str, Floats]

    @property
    def best(self) -> tuple[int | None, float]:
        """(epoch, top-1 in percent) of the epoch that was best on the test images, the first of equals; (None, NaN)
        without one."""
        top1 = self.values["top1"]
        if np.isnan(top1).all():
            return None, float("nan")
        place = int(np.nanargmax(top1))
        return int(self.epochs[place]), round(float(top1[place]), 4)


@dataclass(frozen=True)
class Journal:
    """What the analysis keeps of a journal. `last` is its last event, empty where there is none; `run_seconds` sums
    what each attempt took from its first event to its last; `data` is the checksum of each split that was read;
    `problem` says why the file cannot be read, if so."""

    attempts: int = 0
    last: Mapping[str, Any] = field(default_factory=dict)
    run_seconds: float = 0.0
    data: Mapping[str, str] = field(default_factory=dict)
    curve: Curve | None = None
    problem: str | None = None


def read_journal(path: Path) -> Journal:
    """Read the journal at `path`, once; a file that is not there is an empty journal.

    Left out are lines that cannot be read (a process killed while it writes leaves a torn one), those that are not
    what their checksum says, and what an attempt wrote after a later one had begun. A further attempt that goes back
    replaces the epochs from its first on.
    """
    try:
        content = files.read(path, MOST)
    except FileNotFoundError:
        return Journal()
    except OSError as error:
        return Journal(problem=f"{path} {error}; remove its folder and run the stage again")
    last: dict[str, Any] = {}
    data: dict[str, str] = {}
    spans: dict[int, list[float]] = {}
    points: dict[int, dict[str, Any]] = {}
    told_by = 0
    for event in _events(content):
        last, attempt = event, event["attempt"]
        when = _number(event.get("time"))
        if not math.isnan(when):
            spans.setdefault(attempt, [when, when])[1] = when
        if event["event"] == "metrics":
            step, values = event.get("step"), event.get("values")
            if not _is_count(step) or not isinstance(values, dict):
                continue
            if attempt != told_by:
                points, told_by = {k: v for k, v in points.items() if k < step}, attempt
            points.setdefault(step, {}).update(values)
        elif event["event"] == "data":
            data[str(event.get("split"))] = str(event.get("sha256"))
    return Journal(
        attempts=last.get("attempt", 0),
        last=last,
        run_seconds=sum(max(0.0, end - begin) for begin, end in spans.values()),
        data=data,
        curve=curve(points),
    )


def _events(content: bytes) -> Iterator[dict[str, Any]]:
    newest, sealed = 0, False
    # A journal is decoded once, and its lines with the decoder itself: half the time of json.loads on bytes.
    decode = json.JSONDecoder().raw_decode
    for line in content.split(b"\n"):
        # Lines without a checksum are an older version's, and stand before all that have one.
        sealed = sealed or line[-22:-10] == SEAL
        if sealed:
            body, seal = line[:-22], line[-22:]
            if seal != b'%s%08x"}' % (SEAL, zlib.crc32(body)):
                continue
            line = body + b"}"
        try:
            text = line.decode()
            event, end = decode(text)
        except (ValueError, RecursionError):
            continue
        if (
            end == len(text)
            and isinstance(event, dict)
            and _is_count(event.get("attempt"))
            and "event" in event
        ):
            if event["attempt"] < newest:
                continue
            newest = event["attempt"]
            yield event


def curve(points: Mapping[int, Mapping[str, Any]]) -> Curve | None:
    """The curve of a run that trained, else None: what is only evaluated tells its metrics once, at step 0."""
    epochs = sorted(epoch for epoch in points if epoch > 0)
    if not any("train_loss" in points[epoch] for epoch in epochs):
        return None
    values = {
        name: np.array([_number(points[epoch].get(name)) for epoch in epochs], dtype=np.float32)
        for name in METRICS
    }
    return Curve(np.array(epochs, dtype=np.int32), values)


def _number(value: Any) -> float:
    """`value`, NaN where it is no number that float32 holds: an integer of JSON may have any length."""
    return float(value) if type(value) in (int, float) and abs(value) < LARGEST else math.nan


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**31
