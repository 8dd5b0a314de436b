"""Which layers and confusions of a sweep are shown: those of a few configurations, read from their run directories.

At most MOST configurations of a network are read, so that a sweep of thousands costs no more than a small one. A file
that cannot be used leaves a hole and its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.configurations import by_network, point
from analysis.errors import AnalysisError
from analysis.read.layer_records import COLUMNS, Counts, read_confusion, read_layers

MOST = 20
NEAREST = 4
"""Bits of a weight at which the methods differ most."""
KEPT = 0.5
"""The part of float's top-1 below which a network is taken to have collapsed."""


@dataclass(frozen=True)
class Confusion:
    """Images of a network's test split by true and predicted class, int64 [classes, classes]: `baseline` of the float
    network and `damaged`, where there is one, of the most damaged configuration that has not collapsed, `name`."""

    network: str
    classes: tuple[str, ...]
    baseline: Counts
    damaged: Counts | None = None
    name: str = ""
    top1: float = math.nan


@dataclass(frozen=True)
class Evidence:
    """`shown`: a row a configuration whose layers were looked for, in the order of the tables, with `key`, `point`
    (its name) and `problem` (why it has no layers, else None). `layers`: COLUMNS, a row for each layer and tensor of
    these, NaN and None where nothing was recorded. `confusions`: one a network that has any."""

    shown: pd.DataFrame
    layers: pd.DataFrame
    confusions: tuple[Confusion, ...]


def load(runs: Path, marked: pd.DataFrame, summary: pd.DataFrame) -> Evidence:
    """Read what is shown of a sweep: each configuration by its finished run of the lowest seed."""
    done = marked[marked["state"] == "done"].sort_values(["seed", "key"])
    first = done.drop_duplicates("configuration").set_index("configuration")
    ordered = summary[(summary["method"] != "float") & summary["configuration"].isin(first.index)]
    shown = choose(ordered)
    shown = shown.assign(key=[first["key"][name] for name in shown["configuration"]])
    problems: list[str | None] = []
    rows: list[dict[str, Any]] = []
    for row in shown.to_dict("records"):
        names = {name: row[name] for name in ("model", "dataset", "configuration")}
        try:
            rows += [names | layer for layer in read_layers(runs, row["key"])]
            problems.append(None)
        except AnalysisError as problem:
            problems.append(str(problem))
    layers = pd.DataFrame(rows, columns=list(COLUMNS))
    found = (_confusion(runs, title, group, marked, first) for title, group in by_network(summary))
    confusions = tuple(one for one in found if one is not None)
    return Evidence(shown.assign(problem=pd.Series(problems, shown.index, dtype=object)), layers, confusions)


def choose(summary: pd.DataFrame) -> pd.DataFrame:
    """At most MOST rows of each network, with `point`: every label at its width nearest to NEAREST bits, then every
    label at its next, as long as all fit."""
    kept: list[Any] = []
    for _, group in by_network(summary):
        far = (group["weight_bits"] - NEAREST).abs() + (group["act_bits"] - NEAREST).abs() / 100
        nearest = far.groupby(group["label"]).rank(method="first")
        for number in range(1, MOST + 1):
            these = group.index[nearest == number]
            if number > 1 and len(group.index[nearest <= number]) > MOST:
                break
            kept += list(these[:MOST])
    chosen = summary[summary.index.isin(kept)]
    return chosen.assign(point=[point(row) for row in chosen.to_dict("records")])


def _confusion(
    runs: Path, network: str, group: pd.DataFrame, marked: pd.DataFrame, first: pd.DataFrame
) -> Confusion | None:
    """The confusion of the float network, beside that of the recipe of the lowest top-1 that kept KEPT of it."""
    tops = dict(zip(marked["key"], marked["top1"], strict=True))
    rows = [(name, first.loc[name]) for name in group["configuration"] if name in first.index]
    recipes = [(name, row) for name, row in rows if row["method"] != "float"]
    recipes = [(name, row) for name, row in recipes if row["top1"] >= KEPT * tops.get(row["start"], math.inf)]
    recipes.sort(key=lambda found: float(found[1]["top1"]))
    names = dict(zip(group["configuration"], map(point, group.to_dict("records")), strict=True))
    for name, row in recipes[:MOST]:
        try:
            classes, before = read_confusion(runs, row["start"])
            same, after = read_confusion(runs, row["key"])
        except AnalysisError:
            continue
        if classes == same:
            met = _met(before, after)
            classes = tuple(classes[index] for index in met)
            before, after = before[np.ix_(met, met)], after[np.ix_(met, met)]
            return Confusion(network, classes, before, after, names[name], row["top1"])
    for _, row in rows:
        if row["method"] == "float":
            try:
                classes, counts = read_confusion(runs, row["key"])
            except AnalysisError:
                continue
            met = _met(counts)
            return Confusion(network, tuple(classes[index] for index in met), counts[np.ix_(met, met)])
    return None


def _met(*counts: Counts) -> Sequence[int]:
    """The classes that images have or are taken for: of a head with 1000 outputs and ten classes mostly ten."""
    met = sum(one.any(0) | one.any(1) for one in counts)
    return [int(index) for index in np.flatnonzero(met)]
