"""All that is known of a sweep, read once: what the tables and the sections of the page are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare import (
    ablation,
    agreement,
    comparability,
    configurations,
    latency,
    layers,
    selection,
    versus_best,
)
from analysis.compare.comparability import Differences
from analysis.compare.configurations import JOURNALS
from analysis.compare.layers import Evidence
from analysis.compare.selection import Order
from analysis.read import latency_records, published
from analysis.read.curves import Curve


@dataclass(frozen=True)
class Results:
    """A row a run (`marked`), a row a configuration (`summary`, with `marks` of what is unlike the rest of its table),
    a row a published number (`comparison`), the curves by key, the chains of an explain sweep (None for any other),
    and what lies below the accuracy. What only the run folders hold, image by image and layer by layer, is None and
    empty for another `source`: the same key may be that of another run there, or no name of a folder at all. `order`
    is that of the methods, `width` that of the figures' files in inches, None for that of the page.
    """

    sweep: str
    runs: Path
    marked: pd.DataFrame
    summary: pd.DataFrame
    comparison: pd.DataFrame
    curves: Mapping[str, Curve]
    differences: Differences
    chain: pd.DataFrame | None
    evidence: Evidence
    source: str = JOURNALS
    order: Order = "source"
    width: float | None = None

    @cached_property
    def latency(self) -> pd.DataFrame:
        """`latency.points` of the sweep, made once; without a row where no exported network of it was measured."""
        measured = latency_records.read_latencies(self.runs)
        measured = measured if self.source == JOURNALS else measured[:0]
        return latency.points(measured, self.marked, self.summary)

    @property
    def done(self) -> pd.DataFrame:
        """The finished runs."""
        return self.marked[self.marked["state"] == "done"]

    @property
    def float_top1(self) -> float:
        """The mean top-1 of the float networks, percent; NaN without one."""
        return float(self.marked[self.marked["method"] == "float"]["top1"].mean())

    def marks(self, row: Mapping[str, Any]) -> Sequence[str]:
        """The marks of what is unlike the rest of its table in the configuration of `row`."""
        return self.differences.marks.get(row["configuration"], ())

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """`versus_best.table` of the sweep, made once; without a row where per-image results cannot be read."""
        return versus_best.table(self.runs, self.marked if self.source == JOURNALS else self.marked[:0])


def load(
    runs: Path,
    sweep: str,
    source: str = JOURNALS,
    methods: Sequence[str] = (),
    order: Order = "source",
    width: float | None = None,
) -> Results:
    """Read a sweep from its journals in `runs`, from MLFLOW or from the runs.csv that `source` names; only
    `methods`, where some are named.

    Raises AnalysisError where there is none or it cannot be used.
    """
    marked, curves = configurations.load(runs, sweep, source)
    marked = selection.chosen(marked, methods)
    curves = {key: curves[key] for key in marked["key"] if key in curves}
    numbers = published.load()
    summary = selection.ordered(configurations.summarize(marked, numbers), order, methods)
    comparison = agreement.compare(summary, numbers)
    # Only `suite explain` lays its recipes as chains; neighbours elsewhere differ by one parameter by chance.
    in_folders = source == JOURNALS
    is_explained = in_folders and sweep.startswith("explain")
    chain = ablation.steps(marked, comparison, runs) if is_explained else None
    unlike = comparability.find(marked)
    summary["marks"] = [" ".join(unlike.marks.get(name, ())) for name in summary["configuration"]]
    below = layers.load(runs, marked, summary if in_folders else summary[:0])
    return Results(
        sweep, runs, marked, summary, comparison, curves, unlike, chain, below, source, order, width
    )
