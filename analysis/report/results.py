"""All that is known of a sweep, read once: what the tables, the figures and the report are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.compare import ablation, agreement, comparability, configurations, pareto, versus_best
from analysis.compare.comparability import Differences
from analysis.draw import accuracy, confusion, cost, layers, training_curves, waterfall
from analysis.errors import AnalysisError
from analysis.read import layer_records, mlflow, published, run_folders
from analysis.read.curves import Curve
from analysis.read.layer_records import Evidence
from analysis.read.older import table_as_today
from analysis.read.run_folders import DERIVED, from_csv

JOURNALS, MLFLOW = "journals", "mlflow"


@dataclass(frozen=True)
class Results:
    """A row a run (`marked`), a row a configuration (`summary`, with `marks` of what is unlike the rest of its table),
    a row a published number (`comparison`), the curves by key, the chains of an explain sweep (None for any other),
    and what lies below the accuracy. What only the run folders hold, image by image and layer by layer, is None and
    empty for another `source`: the same key may stand there for another run, or a key be no name of a folder at all.
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

    @property
    def done(self) -> pd.DataFrame:
        """The finished runs."""
        return self.marked[self.marked["state"] == "done"]

    @property
    def float_top1(self) -> float:
        """The mean top-1 of the float networks, percent; NaN without one."""
        return float(self.marked[self.marked["method"] == "float"]["top1"].mean())

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """`pairs.table` of the sweep, read once; without a row where only run folders tell the answers."""
        return versus_best.table(self.runs, self.marked if self.source == JOURNALS else self.marked[:0])

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """Every figure that the sweep has something for, by the name of its file, drawn once."""
        summary, comparison = self.summary, self.comparison
        drawn = {
            "accuracy": accuracy.accuracy(summary, comparison),
            "drop": accuracy.drop(self.marked, summary, comparison),
            "size": cost.figure(summary, pareto.SIZE),
        }
        timed = pareto.latencies(self.marked, summary)
        if len(timed):
            drawn["time"] = cost.figure(timed, pareto.TIME)
        if self.curves:
            drawn["curves"] = training_curves.figure(self.marked, self.curves)
        if self.chain is not None and len(self.chain):
            drawn["waterfall"] = waterfall.figure(self.chain, self.float_top1)
        shown, below = self.evidence.shown, self.evidence.layers
        if below["sqnr_db"].notna().any():
            drawn["layers"] = layers.heat_map(shown, below)
        if len(layers.compared(shown, below)):
            drawn["ranges"] = layers.histograms(shown, below)
        if any(len(one.classes) <= confusion.LARGEST for one in self.evidence.confusions):
            drawn["confusion"] = confusion.figure(self.evidence.confusions)
        return drawn


def load(runs: Path, sweep: str, source: str = JOURNALS) -> Results:
    """Read a sweep from its journals in `runs`, from MLFLOW or from the runs.csv that `source` names.

    Raises AnalysisError where there is none or it cannot be used.
    """
    marked, curves = read(runs, sweep, source)
    numbers = published.load()
    summary = configurations.summarize(marked, numbers)
    comparison = agreement.compare(summary, numbers)
    # Only `suite explain` lays its recipes as chains; neighbours elsewhere differ by one parameter by chance.
    in_folders = source == JOURNALS
    is_explained = in_folders and sweep.startswith("explain")
    chain = ablation.steps(marked, comparison, runs) if is_explained else None
    unlike = comparability.find(marked)
    summary["marks"] = [" ".join(unlike.marks.get(name, ())) for name in summary["configuration"]]
    below = layer_records.load(runs, marked, summary if in_folders else summary[:0])
    return Results(sweep, runs, marked, summary, comparison, curves, unlike, chain, below, source)


def read(runs: Path, sweep: str, source: str = JOURNALS) -> tuple[pd.DataFrame, Mapping[str, Curve]]:
    """A row a run, marked, and the curves by key, of which a runs.csv has none."""
    if source not in (JOURNALS, MLFLOW):
        if not Path(source).is_file():
            raise AnalysisError(f"--from {source!r} is no file; use {JOURNALS}, {MLFLOW} or a runs.csv")
        found = from_csv(Path(source))
        older = table_as_today(found)
        return (found if older is None else configurations.mark(older.drop(columns=[*DERIVED]))), {}
    table, curves = (mlflow if source == MLFLOW else run_folders).load(runs, sweep)
    return configurations.mark(table), curves
