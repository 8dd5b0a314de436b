"""The Pareto front: top-1 against the size of the model and against the latency of exported networks."""

from __future__ import annotations

import math

import pandas as pd

from analysis.compare.roles import are_drawn, are_sound

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


def sound_front(points: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The front of the configurations that do what their method's name says, or of all where none of them is
    quantized: what a source got by a defect is no choice that one has, and a mean over random widths is none."""
    points = points[~are_drawn(points)]
    sound = points[are_sound(points)]
    return front(sound if (sound["method"] != "float").any() else points, cost)
