"""Runs that differ only in their seed are one configuration: its name, its mean, its spread, its holes."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare.significance import Interval, of_accuracy, of_drop, of_mean, wider
from analysis.errors import AnalysisError
from analysis.read import mlflow, run_folders
from analysis.read.budgets import RANDOM, UNIFORM, with_widths
from analysis.read.curves import Curve
from analysis.read.older import table_as_today
from analysis.read.published import Published
from analysis.read.run_folders import DERIVED, from_csv, parameters
from suite.record.words import in_words, is_seed, phrase

JOURNALS, MLFLOW = "journals", "mlflow"
"""The sources of a table of runs, beside a runs.csv."""
FLOAT_BITS = 32
METRICS = ("top1", "top5", "drop", "model_size_mb", "images_per_s")
INTERVALS = ("top1", "top5", "drop")
IDENTITY = ("model", "dataset", "method", "weight_bits", "act_bits")

# The words for values in a label. An empty one is left out of it: the value of the source's text for the switches of
# 000, the sound value for the others.
WORDS: dict[str, dict[Any, str]] = {
    "dtype": {"float32": "", "float16": "half"},
    "rounding": {"truncate": "", "nearest": "rounded", "none": "not rounded"},
    "map_back": {True: "mapped back", False: ""},
    "input_cast": {True: "", False: "float input"},
    "every_tensor": {True: "", False: "weights alone"},
    "weights_evaluated": {True: "", False: "float weights"},
    "batch_statistics": {True: "batch statistics", False: ""},
    "search": {True: "", False: "no search"},
    "bins_are_bits": {True: "bins = bits", False: ""},
    "train_mode": {True: "train mode", False: ""},
    "layers_only": {True: "layers only", False: ""},
    "unsigned_after_relu": {True: "unsigned after ReLU", False: ""},
    "divide_by_128": {True: "/128", False: ""},
    "running_extreme": {True: "running extreme", False: ""},
    "ranges_move": {True: "moving ranges", False: ""},
    "per_layer": {True: "per layer", False: ""},
    "by": {UNIFORM: UNIFORM, RANDOM: RANDOM}
    | {score: f"by {score}" for score in ("noise", "logits", "gradient", "hessian", "loss")},
}
# Where the name of a parameter and its value are not words enough.
PHRASES = {
    "feed_images": "{} images",
    "feed_epochs": "epochs {}",
    "batch_norm": "BatchNorm {}",
    "edges": "first and last layer {}",
}
USUAL = {
    "batch_norm": ("kept",),
    "edges": ("as the rest", "last layer float", "first input and last layer float"),
}
"""The values of those that a label leaves out; the last two are k_sigma's own and that of source 001's methods."""
COMPARED = ("edges",)
"""In the label of any method, where methods of one network differ in it: without it they would seem alike."""


def load(runs: Path, sweep: str, source: str = JOURNALS) -> tuple[pd.DataFrame, Mapping[str, Curve]]:
    """A row a run, marked, and the curves by key, of which a runs.csv has none. Raises AnalysisError where `source`
    or the sweep in it is not there or cannot be used."""
    if source not in (JOURNALS, MLFLOW):
        if not Path(source).is_file():
            raise AnalysisError(f"--from {source!r} is no file; use {JOURNALS}, {MLFLOW} or a runs.csv")
        found = from_csv(Path(source))
        older = table_as_today(found)
        return (found if older is None else mark(older.drop(columns=[*DERIVED]))), {}
    table, curves = (mlflow if source == MLFLOW else run_folders).load(runs, sweep)
    return mark(table), curves


def mark(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with three more columns: `configuration` (an id), `label` (for people), `drop` (points).

    The id is every parameter but the seeds (`seed` and those that end in `_seed`). The label is the method and
    the parameters that distinguish the configurations of one method at one width. The drop is the top-1 of the
    run's own float stage minus its own.
    """
    marked = runs.copy()
    varied = [name for name in parameters(runs) if not is_seed(name)]
    marked["configuration"] = [
        json.dumps({name: row[name] for name in varied if row[name] is not None}, sort_keys=True, default=str)
        for row in _records(runs)
    ]
    labels = _labels(marked, [name for name in varied if name not in IDENTITY])
    marked["label"] = [labels[configuration] for configuration in marked["configuration"]]
    top1 = dict(zip(runs["key"], runs["top1"], strict=True))
    marked["drop"] = [top1.get(key, float("nan")) for key in runs["start"]] - runs["top1"]
    return marked


def summarize(marked: pd.DataFrame, published: Published) -> pd.DataFrame:
    """One row a configuration of a table made by `mark`, sorted the same way whatever the order of the runs.

    `n` runs are done of the `expected` ones; each metric has its mean over them and, as `_sd`, its sample
    standard deviation (NaN below two runs); accuracies and drops also have as `_low` and `_high` their 95 % interval
    (`significance.of_accuracy`). Order: dataset, model, float first, then the methods by source, then label, then
    from wide to narrow. `states` counts the runs, `done` included.
    """
    # Parameters are a hundred columns, of which every selection of rows would make copies.
    slim = marked[["configuration", "label", *IDENTITY, "seed", "key", "state", "test_images", *METRICS]]
    rows = [_summary(group) for _, group in slim.groupby("configuration", sort=False)]
    order = {"float": -1} | {method: index for index, method in enumerate(published.methods)}
    for row in rows:
        row["source"] = published.methods.get(row["method"], "")

    def position(row: dict[str, Any]) -> tuple[Any, ...]:
        method = (order.get(row["method"], len(order)), row["method"], row["label"])
        return (
            row["dataset"],
            row["model"],
            *method,
            -row["weight_bits"],
            -row["act_bits"],
            row["configuration"],
        )

    return with_widths(pd.DataFrame(sorted(rows, key=position)))


def by_network(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each model and data set, in their order, with a title."""
    groups = table.groupby(["model", "dataset"], sort=False)
    return [(f"{model} on {dataset}", group) for (model, dataset), group in groups]


def hole(row: Mapping[str, Any]) -> str:
    """Why a configuration without a finished run has none: `failed`, `running`, `stopped` or `not run`."""
    return next((state for state in ("failed", "running", "stopped") if state in row["states"]), "not run")


def point(row: Mapping[str, Any]) -> str:
    """The short name of a configuration: `amax w4a8`."""
    if row["weight_bits"] == FLOAT_BITS:
        return str(row["label"])
    return f"{row['label']} {widths(row)}"


def widths(row: Mapping[str, Any]) -> str:
    """The bits of weights and, unless they are float, of activations.

    >>> widths({"weight_bits": 4, "act_bits": 32}), widths({"weight_bits": 2.5, "act_bits": 2.5})
    ('w4', 'w2.5a2.5')
    """
    acts = "" if row["act_bits"] == FLOAT_BITS else f"a{row['act_bits']:g}"
    return f"w{row['weight_bits']:g}{acts}"


def _summary(group: pd.DataFrame) -> dict[str, Any]:
    group = group.sort_values(["seed", "key"])
    done = group[group["state"] == "done"]
    names = ("configuration", "label", *IDENTITY)
    row: dict[str, Any] = _records(group.head(1)[[*names]])[0]
    row |= {"n": len(done), "expected": len(group), "states": _counts(group["state"])}
    images = done["test_images"].min()
    for metric in METRICS:
        values = [value for value in done[metric] if not math.isnan(value)]
        row[metric] = statistics.fmean(values) if values else float("nan")
        row[f"{metric}_sd"] = statistics.stdev(values) if len(values) > 1 else float("nan")
        if metric in INTERVALS:
            row[f"{metric}_low"], row[f"{metric}_high"] = _interval(done, row, metric)
    return row | {"test_images": images}


def _interval(done: pd.DataFrame, row: Mapping[str, Any], metric: str) -> Interval:
    mean, sd, n, images = row[metric], row[f"{metric}_sd"], done[metric].count(), done["test_images"].min()
    if metric == "drop":
        # Of the runs whose float stage is known: only they have a drop.
        end = done["top1"][done["drop"].notna()].mean()
        low, high = wider(of_mean(mean, sd, n), of_drop(end + mean, end, images))
        return max(low, -100.0), min(high, 100.0)
    return of_accuracy(mean, sd, n, images)


def _counts(states: Iterable[str]) -> dict[str, int]:
    found = list(states)
    states = ("done", "failed", "running", "stopped", "pending")
    return {state: found.count(state) for state in states if state in found}


def _labels(marked: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    labels = {}
    for _, network in marked.drop_duplicates("configuration").groupby(["model", "dataset"]):
        compared = [name for name in COMPARED if name in names and _differs(network[name])]
        for method, group in network.groupby("method"):
            rows = _records(group)
            words = {
                name: _words(name, str(method), [row[name] for row in rows])
                for name in _distinguishing(rows, names, compared)
            }
            for row in rows:
                parts = [words[name][_hashable(row[name])] for name in words]
                labels[row["configuration"]] = ", ".join([str(method), *filter(None, parts)])
    return labels


def _differs(column: pd.Series[Any]) -> bool:
    """Whether it has two values; runs without one are left out."""
    return len({_hashable(value) for value in column if value not in (None, "")}) > 1


def _distinguishing(
    rows: Sequence[dict[str, Any]], names: Sequence[str], compared: Sequence[str]
) -> list[str]:
    """Those `compared`, and the parameters that distinguish rows of one width: all of WORDS that differ, as few others
    as will do."""

    def distinct(chosen: Sequence[str]) -> int:
        widths = ("weight_bits", "act_bits")
        return len({tuple(_hashable(row[name]) for name in (*widths, *chosen)) for row in rows})

    chosen = [*compared, *(name for name in WORDS if name in names and distinct([name]) > distinct([]))]
    for name in sorted(set(names) - {*WORDS, *chosen}, key=lambda name: (name not in PHRASES, name)):
        # A training field that follows from those already chosen would only make the label longer.
        if distinct([*chosen, name]) > distinct(chosen):
            chosen.append(name)
    return chosen


def _words(name: str, method: str, values: Iterable[Any]) -> dict[Hashable, str]:
    """The text of a label for each value of one parameter: never the same for two of them."""
    met = {_hashable(value): value for value in values}
    known = {_hashable(value): word for value, word in WORDS.get(name, {}).items()}
    if met.keys() <= known.keys():
        return {key: known[key] for key in met}
    # "percentile, 0.999" rather than "percentile, percentile 0.999".
    title = "" if name == method else name.removeprefix("param_")
    none = next((value for value in met.values() if value in (None, "None", "")), False)
    omitted = {_hashable(value) for value in (USUAL.get(name, (False,)) if none is False else (none,))}

    def word(value: Any, show: Callable[[Any], str]) -> str:
        if _hashable(value) in omitted:
            return ""
        if name in PHRASES:
            return PHRASES[name].format(show(value))
        if isinstance(value, bool) and title:
            return phrase(title, value)
        return phrase(title, in_words(show(value))) if title else show(value)

    words = {key: word(value, str) for key, value in met.items()}
    return words if len(set(words.values())) == len(met) else {key: word(met[key], repr) for key in met}


def _hashable(value: Any) -> Hashable:
    # True and 1 are equal keys of a dictionary, and different parameters.
    return (type(value).__name__, str(value))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = table.to_dict("records")
    return records
