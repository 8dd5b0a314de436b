"""Which methods of a sweep are shown, and in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from analysis.errors import AnalysisError

Order = Literal["source", "given", "drop"]


def chosen(marked: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """The runs of these methods and the float networks; of all where none is named. Raises AnalysisError for a method
    of which there is no run."""
    known = list(dict.fromkeys(marked["method"]))
    if unknown := [name for name in methods if name not in known]:
        raise AnalysisError(f"no run is of {', '.join(unknown)}; this sweep has {', '.join(known)}")
    return marked[marked["method"].isin(["float", *methods])] if methods else marked


def ordered(summary: pd.DataFrame, order: Order, methods: Sequence[str]) -> pd.DataFrame:
    """The rows of `configurations.summarize` with the lines of each network in another order: `given`, as in
    `methods`; `drop`, the smallest mean drop first; `source` leaves them. Float networks stay first."""
    if order == "source" or not len(summary):
        return summary
    line = [summary[name] for name in ("dataset", "model", "method", "label")]
    if order == "drop":
        rank = summary["drop"].groupby(line).transform("mean").fillna(math.inf)
    else:
        places = {name: place for place, name in enumerate(methods)}
        rank = summary["method"].map(places).fillna(len(places))
    rank = rank.where(summary["method"] != "float", -math.inf)
    network = summary.groupby(["dataset", "model"], sort=False).ngroup()
    keys = pd.DataFrame({"network": network, "rank": rank})
    return summary.loc[keys.sort_values(["network", "rank"], kind="stable").index].reset_index(drop=True)
