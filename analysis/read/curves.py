"""What the analysis keeps of a run's journal: its attempts, its hours, its data and its training curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from suite.record import files
from suite.record.events import MOST_BYTES, decode_events
from suite.record.journal import counted_metrics, images_read, run_seconds

Floats: TypeAlias = NDArray[np.float32]
LARGEST = 1e30
METRICS = ("train_loss", "train_top1", "loss", "top1")
LEARNED = "learned_"
"""What the metrics of parameters of quantizers begin with."""


@dataclass(frozen=True)
class Curve:
    """What a training recorded by epoch. `epochs` ascend, counted from 1; each of METRICS has a value for each of
    them, NaN where none was recorded or it was not finite: losses in nats, top1 in percent."""

    epochs: NDArray[np.int32]
    values: Mapping[str, Floats]
    learned: Mapping[str, Floats] = field(default_factory=dict, compare=False)
    """By the name of its metric what each parameter of a quantizer was before training and after each of `epochs`: one
    value more than those."""

    @property
    def best(self) -> tuple[int | None, float]:
        """(epoch, top-1 in percent) of the epoch that was best on the test images, the first of equals; (None, NaN)
        without one."""
        top1 = self.values["top1"]
        if np.isnan(top1).all():
            return None, float("nan")
        index = int(np.nanargmax(top1))
        return int(self.epochs[index]), round(float(top1[index]), 4)


@dataclass(frozen=True)
class Journal:
    """What the analysis keeps of a journal. `last` is its last event, empty where there is none; `run_seconds` sums
    what each attempt took from its first event to its last; `data` is the checksum of each split that was read;
    `problem` is why the file cannot be read, if so."""

    attempts: int = 0
    last: Mapping[str, Any] = field(default_factory=dict)
    run_seconds: float = 0.0
    data: Mapping[str, str] = field(default_factory=dict)
    curve: Curve | None = None
    problem: str | None = None


def read_journal(folder: Path) -> Journal:
    """Read the journal of the run directory `folder`; one that is not there is empty.

    suite.record decides which of its lines count. A further attempt that goes back replaces the epochs from its
    first on.
    """
    path = folder / "events.jsonl"
    try:
        events, _ = decode_events(files.read_bytes(path, MOST_BYTES))
    except FileNotFoundError:
        return Journal()
    except OSError as error:
        return Journal(problem=f"{path} {error}; remove its folder and run the stage again")
    points: dict[int, dict[str, Any]] = {}
    for event in counted_metrics(events)[0]:
        points.setdefault(event["step"], {}).update(event["values"])
    last = events[-1] if events else {}
    return Journal(
        attempts=last.get("attempt", 0),
        last=last,
        run_seconds=run_seconds(events),
        data=images_read(events),
        curve=curve(points),
    )


def curve(points: Mapping[int, Mapping[str, Any]]) -> Curve | None:
    """The curve of a run that trained, else None: what is only evaluated records its metrics once, at step 0."""
    epochs = sorted(epoch for epoch in points if epoch > 0)
    if not any("train_loss" in points[epoch] for epoch in epochs):
        return None
    values = {
        name: np.array([_number(points[epoch].get(name)) for epoch in epochs], dtype=np.float32)
        for name in METRICS
    }
    names = sorted({name for values in points.values() for name in values if name.startswith(LEARNED)})
    learned = {
        name: np.array([_number(points.get(epoch, {}).get(name)) for epoch in (0, *epochs)], dtype=np.float32)
        for name in names
    }
    return Curve(np.array(epochs, dtype=np.int32), values, learned)


def _number(value: Any) -> float:
    """`value`, NaN where it is no number that float32 holds: an integer of JSON may have any length."""
    return float(value) if type(value) in (int, float) and abs(value) < LARGEST else math.nan
