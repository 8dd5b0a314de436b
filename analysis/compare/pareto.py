"""The Pareto front: top-1 against the size of the model and against the measured time an image takes."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.compare.significance import of_accuracy

Record = dict[str, Any]


SIZE, TIME = "model_size_mb", "image_ms"


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


def latencies(marked: pd.DataFrame, configurations: pd.DataFrame) -> pd.DataFrame:
    """`configurations` by device, with `device`, and `image_ms`: milliseconds an image, the mean over its runs there.

    Times of different devices do not compare, so each device has rows, and later a panel, of its own. The drop is that
    over all of them.
    """
    done = marked[(marked["state"] == "done") & (marked["images_per_s"] > 0) & marked["device"].notna()]
    done = done.assign(**{TIME: 1000 / done["images_per_s"]})
    grouped = done.groupby(["configuration", "device"], sort=False)
    found = grouped.agg(
        image_ms=(TIME, "mean"),
        top1=("top1", "mean"),
        top1_sd=("top1", "std"),
        n=("key", "size"),
        images=("test_images", "min"),
    )
    ends = [of_accuracy(*row) for row in found[["top1", "top1_sd", "n", "images"]].itertuples(index=False)]
    found["top1_low"], found["top1_high"] = [low for low, _ in ends], [high for _, high in ends]
    columns = ["configuration", "label", "model", "dataset", "method", "weight_bits", "act_bits"]
    columns += ["drop", "drop_low", "drop_high"]
    return configurations[columns].merge(found.reset_index(), on="configuration", how="inner", sort=False)
