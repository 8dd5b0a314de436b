"""Each published number beside our own, and one verdict on it, defined once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.published import Number, Published

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
DROP_REPRODUCED, DROP_NOT_REPRODUCED = "drop reproduced", "drop not reproduced"
MEASURES_ELSE = "measures something else"
JUDGED = (REPRODUCED, NOT_REPRODUCED, DROP_REPRODUCED, DROP_NOT_REPRODUCED, MEASURES_ELSE)
OTHER = "other model or data"
TRAINED_ELSEWHERE = "other training"
UNNAMED = "model not stated"
NOT_RUN = "not run"
DEFINITION = (
    "Reproduced: the published number and our run of what its source ran, or on another network their drops from "
    "float, differ by no more than the larger of 0.5 points and 2 standard errors. Where doing what the label says "
    "gives a result that differs by more than that from what was run, the number measures something else."
)
"""Of the verdicts, the only one; `verdict` is its arithmetic."""

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
    says whether model and dataset are the published ones, `tolerance` is NaN where no claim is made. `labelled` is the
    configuration that does what the number's label says, where that is another one and was run, with `ours_labelled`.
    A number stands beside configurations of another model or dataset only if the sweep has none of its own.
    """
    rows = []
    records = configurations.to_dict("records")
    for number in published.numbers:
        matching = [row for row in records if matches(number, row)]
        own = [row for row in matching if same(number, row)]
        rows += [_row(number, published, row, records) for row in own or matching or [None]]
    return pd.DataFrame(rows)


def matches(number: Number, row: Mapping[str, Any]) -> bool:
    """Whether a configuration says everything the number's `match` asks for."""
    said = json.loads(row["configuration"])
    # 1 == True in Python, and a bit width is not a switch.
    return all(
        name in said and said[name] == value and isinstance(said[name], bool) == isinstance(value, bool)
        for name, value in number.match.items()
    )


def same(number: Number, row: Mapping[str, Any]) -> bool:
    """Whether model and dataset are the published ones; never where the source names no model."""
    return bool(number.model == row["model"] and number.dataset == row["dataset"])


def as_labelled(
    number: Number, row: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The finished configuration that differs from `row` in nothing but what the number's label says otherwise."""
    if not number.labelled:
        return None
    wanted = json.loads(row["configuration"]) | number.labelled
    return next(
        (other for other in records if other["n"] and json.loads(other["configuration"]) == wanted), None
    )


def verdict(
    number: Number,
    row: Mapping[str, Any] | None,
    labelled: Mapping[str, Any] | None = None,
    published_drop: float | None = None,
) -> tuple[str, float]:
    """What can be said of a published number beside one configuration, and the tolerance it was said with: DEFINITION.

    `labelled` is the configuration that does what the label says. Of another model, or where the float network is
    somebody's checkpoint, only the drop is compared: its own accuracy is not that of the source's training. No claim
    is made of other data, nor where the source states no float accuracy to drop from. The tolerance of a drop is that
    of the two quantized accuracies: an image that is hard for both networks cancels, which errs on the side of
    calling drops equal; where the source prints whole percents, two of them were rounded.
    """
    if row is None or row["n"] == 0:
        return NOT_RUN, math.nan
    metric = number.metric
    ours, spread = row[metric], {"images": row["test_images"], "n": row["n"], "sd": row[f"{metric}_sd"]}
    is_its_data = number.dataset == row["dataset"]
    other = math.nan if labelled is None else labelled[metric]
    if is_its_data and abs(ours - other) > tolerance(ours, other, **spread):
        return MEASURES_ELSE, math.nan
    allowed = tolerance(ours, number.value, **spread)
    if same(number, row) and "checkpoint_sha256" not in json.loads(row["configuration"]):
        return (REPRODUCED if abs(ours - number.value) <= allowed else NOT_REPRODUCED), allowed
    if is_its_data and published_drop is not None and not math.isnan(row["drop"]):
        allowed = max(allowed, 2 * POINTS if isinstance(number.value, int) else POINTS)
        is_equal = abs(row["drop"] - published_drop) <= allowed
        return (DROP_REPRODUCED if is_equal else DROP_NOT_REPRODUCED), allowed
    if number.model is None:
        return UNNAMED, math.nan
    return (TRAINED_ELSEWHERE if same(number, row) else OTHER), math.nan


def _row(
    number: Number,
    published: Published,
    row: Mapping[str, Any] | None,
    records: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    ours = math.nan if row is None else row[number.metric]
    labelled = None if row is None else as_labelled(number, row, records)
    drop = published.drop(number)
    word, allowed = verdict(number, row, labelled, drop)
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
        "n": 0 if row is None else row["n"],
        "same": row is not None and same(number, row),
        "ours": ours,
        "our_drop": row["drop"] if row is not None and number.metric == "top1" else math.nan,
        "difference": ours - number.value,
        "labelled": None if labelled is None else labelled["configuration"],
        "ours_labelled": math.nan if labelled is None else labelled[number.metric],
        "tolerance": allowed,
        "verdict": word,
        "note": number.note,
    }
