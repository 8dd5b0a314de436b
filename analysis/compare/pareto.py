"""The Pareto front: top-1 against the size of the model and against the latency of exported networks."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

Record = dict[str, Any]


SIZE, LATENCY = "model_size_mb", "image_ms"


def front(points: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The rows of `points` that no other beats: none has at least the `top1` at no more of `cost` and is better in
    one of them. From cheap to dear; rows without both numbers are left out."""
    known = points[points["top1"].notna() & points[cost].notna()]
    kept, best, last = [], -math.inf, math.nan
    for index, row in known.sort_values([cost, "top1"], ascending=[True, False]).iterrows():
        if row["top1"] > best or (row["top1"] == best and row[cost] == last):
            kept.append(index)
            best, last = row["top1"], row[cost]
    return known.loc[kept]
