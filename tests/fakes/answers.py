"""Runs with given right answers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.runs_folder import Json, begin, finish, plan, stage

Bits = NDArray[np.bool_]


IMAGES = 1000


DATA = {"event": "data", "split": "test", "sha256": "e" * 64}


def answered(runs: Path, what: Json, right: Bits, *events: Json, **changed: Any) -> None:
    """A finished run with the result of each image."""
    packed = base64.b64encode(np.packbits(right).tobytes()).decode()
    begin(runs, what, *(events or (DATA,)))
    journal = (runs / what["key"] / "events.jsonl").read_text()
    finish(runs, what, 100 * right.mean(), images=len(right), correct=packed, **changed)
    (runs / what["key"] / "events.jsonl").write_text(journal)


def right(count: int) -> Bits:
    """All images but the first `IMAGES - count` right."""
    return np.arange(IMAGES) >= IMAGES - count


def swept(runs: Path, answers: dict[str, np.ndarray], seeds: int = 1, **params: Any) -> list[Json]:
    """A finished sweep at 4 bits, of each method with those answers, on a float network for each seed."""
    listed = []
    for seed in range(seeds):
        start = stage("float", 32, seed)
        listed += [start, *(stage(method, 4, seed, start, **params) for method in answers)]
    plan(runs, *listed)
    for one in listed:
        answered(runs, one, answers.get(one["params"]["method"], right(1000)))
    return listed
