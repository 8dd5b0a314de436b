"""What `suite latency` measured, from the runs folder: a row for each network, runtime, precision and batch."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.record import files

COLUMNS = (
    "key",
    "runtime",
    "precision",
    "batch",
    "median_ms",
    "processor_ms",
    "device",
    "threads",
    "correct",
)
FORMAT = 1


def read_latencies(runs: Path) -> pd.DataFrame:
    """COLUMNS, newest records last; `correct` is bool [images], or None. Files that are no such records, or of a newer
    suite, are left out."""
    rows = [row for file in sorted((runs / "latency").glob("*.json")) for row in _rows(file)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        record = json.loads(files.read_bytes(file))
        if record["format"] != FORMAT:
            return
        of_all = {"device": str(record["device"]), "threads": int(record["threads"])}
        for row in record["rows"]:
            numbers = {name: float(row[name]) for name in ("median_ms", "processor_ms")}
            if not all(math.isfinite(value) and value > 0 for value in numbers.values()):
                continue
            names = {name: files.printable(str(row[name])) for name in ("key", "runtime", "precision")}
            yield {**of_all, **names, **numbers, "batch": int(row["batch"]), "correct": _correct(row)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return


def _correct(row: dict[str, Any]) -> Any:
    if "correct" not in row:
        return None
    packed = np.frombuffer(base64.b64decode(row["correct"]), dtype=np.uint8)
    return np.unpackbits(packed)[: int(row["images"])].astype(bool)
