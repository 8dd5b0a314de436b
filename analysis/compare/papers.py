"""Papers' numbers on low widths beside our own: losses from float, of equal networks, widths and conventions only.

Other than the five sources' numbers they are not there to be reproduced: each says how much another method loses where
the first and the last layer have the same width, and where as much is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from analysis.read import published
from analysis.read.published import Number, Published

FILES = {"published_lowbit.toml": True, "published_ptq.toml": False}
"""Of the papers' numbers, each with whether its methods train on labelled images."""

LESS, MORE, ALIKE, NOT_RUN = "we lose less", "we lose more", "no difference shown", "not run"
DEFINITION = (
    "Compared are losses from float, of the same network, data set and widths, in the same convention of the first "
    "and last layer, training on labels or not. We lose less, or more, where the 95 % interval of our loss lies "
    "below, or above, what the paper states."
)
STAND_IN = "best"
"""What a number without training is compared with where its method is none of the suite's."""
FLOAT_BITS = 32


@cache
def numbers() -> tuple[tuple[Published, bool], ...]:
    """All papers' numbers, by file, with whether they were trained on labels."""
    return tuple((published.load(published.PATH.with_name(name)), trains) for name, trains in FILES.items())


def convention(number: Number) -> str | None:
    """What the paper does with the first and the last layer, in the words of the parameter `edges`; None where it is
    not known."""
    bits = number.match.get("first_last")
    if bits is None or "first_last_inputs" in number.match:
        return None
    if bits == number.match["weight_bits"]:
        return "as the rest"
    return "float" if bits == FLOAT_BITS else f"{bits} bits"


def beside(summary: pd.DataFrame) -> pd.DataFrame:
    """A row for each paper's number of a network and data set in `summary`, except those of float networks: `paper`
    (what it calls the method), `source`, `note`, `weight_bits`, `act_bits`, `edges`, `trained`, `published`, its
    `loss`, and of our configuration beside it `label`, `n`, `drop`, `drop_low`, `drop_high` and the `verdict`. Empty
    without such a network, and where no configuration has the convention of any.
    """
    ours = [row for row in summary.to_dict("records") if row["method"] != "float"]
    networks = {(row["model"], row["dataset"]) for row in ours}
    rows = [
        _row(number, found, trains, ours)
        for found, trains in numbers()
        for number in found.numbers
        if number.match["method"] != "float" and (number.model, number.dataset) in networks
    ]
    table = pd.DataFrame(rows)
    return table if len(table) and (table["verdict"] != NOT_RUN).any() else table[:0]


def _row(number: Number, found: Published, trains: bool, ours: list[dict[str, Any]]) -> dict[str, Any]:
    edges, loss = convention(number), found.drop(number)
    mine = [row for row in ours if _is_alike(number, edges, trains, row)]
    same = [row for row in mine if row["method"] == number.match["method"]]
    stand_in = [] if trains else [row for row in mine if row["method"] == STAND_IN]
    row: Mapping[str, Any] = next(iter(same or stand_in), {})
    return {
        "paper": number.label,
        "source": number.source,
        "note": number.note,
        "model": number.model,
        "dataset": number.dataset,
        "weight_bits": number.match["weight_bits"],
        "act_bits": number.match["act_bits"],
        "edges": edges or "not stated",
        "trained": trains,
        "published": number.value,
        "loss": math.nan if loss is None else loss,
        "label": row.get("label", ""),
        "n": row.get("n", 0),
        **{name: row.get(name, math.nan) for name in ("top1", "drop", "drop_low", "drop_high")},
        "verdict": _verdict(loss, row),
    }


def _is_alike(number: Number, edges: str | None, trains: bool, row: Mapping[str, Any]) -> bool:
    params = json.loads(row["configuration"])
    return (
        edges is not None
        and params.get("edges", "as the rest") == edges
        and ("feed_epochs" in params) == trains
        and (number.model, number.dataset) == (row["model"], row["dataset"])
        and all(params.get(name) == number.match[name] for name in ("weight_bits", "act_bits"))
        and row["n"] > 0
        and not math.isnan(row["drop"])
    )


def _verdict(loss: float | None, row: Mapping[str, Any]) -> str:
    if not row or loss is None:
        return NOT_RUN
    if row["drop_high"] < loss:
        return LESS
    return MORE if row["drop_low"] > loss else ALIKE
