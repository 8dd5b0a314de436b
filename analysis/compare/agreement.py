"""Each published number beside our own, and one verdict on it, defined once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from analysis.read.published import Number, Published

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
DROP_REPRODUCED, DROP_NOT_REPRODUCED = "drop reproduced", "drop not reproduced"
MEASURES_ELSE = "measures something else"
JUDGED = (REPRODUCED, NOT_REPRODUCED, DROP_REPRODUCED, DROP_NOT_REPRODUCED, MEASURES_ELSE)
OTHER = "other model or data"
TRAINED_ELSEWHERE = "other training"
UNNAMED = "model not stated"
NOT_RUN = "not run"
DEFINITION = (
    "Reproduced: the published number and our re-run of what its source ran, as far as that is known, differ by no "
    "more than the larger of 0.5 points and 2 standard errors; on another network this is asked of the drops from "
    "float. A number measures something else where doing what its label says gives another result than the re-run, "
    "and the published one lies nearer to the re-run."
)
"""Of the verdicts, the only one; `agreement` and `measures_else` are its arithmetic."""

POINTS = 0.5
ERRORS = 2.0


def tolerance(value: float, published: float, *, images: float, n: int, sd: float) -> float:
    """How far two results may lie apart and still be the same, in points: max(0.5, 2 standard errors).

    The standard error is that of the difference between our mean `value` of `n` seeds and one published run,
    taken as independent:

        a (100 - a) / images + b (100 - b) / images + sd^2 / n + sd^2, its root,

    the binomial variance of either percent on a test set of `images`, the variance of our mean over seeds,
    and that of the single published seed, of which nothing is known but our own `sd`. One run of ours has no
    `sd` (NaN): only the binomial part is left. The two binomial parts are not reduced for being measured on
    the same images, which errs on the side of calling results equal; 0.5 points also covers what a source
    rounded away.

    >>> round(tolerance(91.7, 91.7, images=10_000, n=1, sd=float("nan")), 2)
    0.78
    >>> tolerance(99.99, 99.99, images=10_000, n=3, sd=0.01)
    0.5
    """
    variance = sum(percent * (100 - percent) / images for percent in (value, published))
    if not math.isnan(sd):
        variance += sd**2 / n + sd**2
    return max(POINTS, ERRORS * math.sqrt(variance))


def compare(configurations: pd.DataFrame, published: Published) -> pd.DataFrame:
    """One row for each published number and each configuration that re-runs it; for a number that none
    re-runs, one row with verdict `not run` and no configuration.

    `ours` and `our_drop` are our means (the drop only beside a top-1), `difference` is ours - published, `same`
    is whether model and dataset are the published ones. `rerun` is whether the re-run agrees, within `tolerance`
    (NaN where no claim is made), and `verdict` the same unless the number measures something else. `labelled` is the
    configuration that does what the number's label says, where that is another one and was run, with `ours_labelled`
    and `labelled_drop`. A number is put beside configurations of another model or dataset only if none of its own is
    done.
    """
    rows = []
    records = configurations.to_dict("records")
    known = {row["configuration"]: row for row in records if row["n"]}
    for number in published.numbers:
        matching = [row for row in records if matches(number, row)]
        own = [row for row in matching if same(number, row)]
        done = [row for row in own if row["n"]] or [row for row in matching if row["n"]]
        rows += [_row(number, published, row, known) for row in done or own or matching or [None]]
    return pd.DataFrame(rows)


def matches(number: Number, row: Mapping[str, Any]) -> bool:
    """Whether a configuration has every parameter that the number's `match` asks for."""
    params = _params(row["configuration"])
    # 1 == True in Python, and a bit width is not a switch.
    return all(
        name in params and params[name] == value and isinstance(params[name], bool) == isinstance(value, bool)
        for name, value in number.match.items()
    )


@cache
def _params(configuration: str) -> Mapping[str, Any]:
    params: Mapping[str, Any] = json.loads(configuration)
    return params


def same(number: Number, row: Mapping[str, Any]) -> bool:
    """Whether model and dataset are the published ones; never where the source names no model."""
    return bool(number.model == row["model"] and number.dataset == row["dataset"])


def as_labelled(
    number: Number, row: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Of the finished configurations `known`, that which differs from `row` in nothing but what the label says."""
    if not number.labelled:
        return None
    # As `configurations.mark` writes it.
    return known.get(json.dumps({**_params(row["configuration"]), **number.labelled}, sort_keys=True))


def agreement(
    number: Number, row: Mapping[str, Any] | None, published_drop: float | None = None
) -> tuple[str, float]:
    """Whether our re-run `row` gives the published number, and the tolerance of that verdict: DEFINITION.

    Of another model, or where the float network is somebody's checkpoint, only the drop is compared: its own accuracy
    is not that of the source's training. No claim is made of other data, of a source that names no model, nor where it
    states no float accuracy to drop from. The tolerance of a drop is that of the two quantized accuracies: an image
    that is hard for both networks cancels, which errs on the side of calling drops equal.
    """
    if row is None or not row["n"] or math.isnan(row[number.metric]):
        return NOT_RUN, math.nan
    if number.dataset != row["dataset"]:
        return OTHER, math.nan
    if number.model is None:
        return UNNAMED, math.nan
    ours, sd = row[number.metric], row[f"{number.metric}_sd"]
    allowed = tolerance(ours, number.value, images=row["test_images"], n=row["n"], sd=sd)
    if same(number, row) and "checkpoint_sha256" not in _params(row["configuration"]):
        return (REPRODUCED if abs(ours - number.value) <= allowed else NOT_REPRODUCED), allowed
    if published_drop is not None and not math.isnan(row["drop"]):
        is_equal = abs(row["drop"] - published_drop) <= allowed
        return (DROP_REPRODUCED if is_equal else DROP_NOT_REPRODUCED), allowed
    return (TRAINED_ELSEWHERE if same(number, row) else OTHER), math.nan


def measures_else(
    number: Number,
    row: Mapping[str, Any],
    labelled: Mapping[str, Any],
    published_drop: float | None = None,
) -> bool:
    """Whether `labelled`, which does what the number's label says, gives another result than the re-run `row` on the
    published data set, and the published number, or its drop, lies nearer to the re-run."""
    metric = number.metric
    sides = (row, labelled)
    variance = sum(
        side[metric] * (100 - side[metric]) / side["test_images"]
        + (0 if math.isnan(side[f"{metric}_sd"]) else side[f"{metric}_sd"] ** 2 / side["n"])
        for side in sides
    )
    by_drop = published_drop is not None and metric == "top1"
    target = published_drop if by_drop else number.value
    of_rerun, of_labelled = (abs(side["drop" if by_drop else metric] - target) for side in sides)
    apart = abs(row[metric] - labelled[metric]) > max(POINTS, ERRORS * math.sqrt(variance))
    return bool(number.dataset == row["dataset"] and apart and of_rerun < of_labelled)


def _row(
    number: Number,
    published: Published,
    row: Mapping[str, Any] | None,
    known: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    ours = math.nan if row is None else row[number.metric]
    labelled = None if row is None else as_labelled(number, row, known)
    drop = published.drop(number)
    rerun, allowed = agreement(number, row, drop)
    is_else = row is not None and labelled is not None and measures_else(number, row, labelled, drop)
    is_top1 = number.metric == "top1"
    return {
        "id": number.id,
        "source": number.source,
        "published_label": number.label,
        "metric": number.metric,
        "published_model": number.model,
        "published_dataset": number.dataset,
        "published": float(number.value),
        "published_drop": math.nan if drop is None else drop,
        "published_best": number.best,
        "configuration": None if row is None else row["configuration"],
        "label": None if row is None else row["label"],
        "our_dataset": None if row is None else row["dataset"],
        "n": 0 if row is None else row["n"],
        "same": row is not None and same(number, row),
        "ours": ours,
        "our_drop": row["drop"] if row is not None and is_top1 else math.nan,
        "difference": ours - number.value,
        "labelled": None if labelled is None else labelled["configuration"],
        "ours_labelled": math.nan if labelled is None else labelled[number.metric],
        "labelled_drop": labelled["drop"] if labelled is not None and is_top1 else math.nan,
        "tolerance": allowed,
        "rerun": rerun,
        "verdict": MEASURES_ELSE if is_else else rerun,
        "note": number.note,
    }
