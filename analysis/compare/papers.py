"""Papers' numbers on low widths beside our own: losses from float, of equal networks, widths and conventions only.

Other than the five sources' numbers they are not there to be reproduced: each says how much another method loses where
the first and the last layer have the same width, identity shortcuts carry the same, and as much is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from analysis.compare.significance import of_mean
from analysis.read import published
from analysis.read.published import Number, Published

FILES = {"published_lowbit.toml": True, "published_ptq.toml": False}
"""Of the papers' numbers, each with whether its methods train on labelled images."""

LESS, MORE, ALIKE, NOT_RUN = "we lose less", "we lose more", "no difference shown", "not run"
OTHER = "another convention"
JUDGED = (LESS, MORE, ALIKE)
DEFINITION = (
    "Compared are losses from float, of the same network, data set and widths, in the same convention of the first "
    "and last layer, of the image (8 bits and float are alike) and of what an identity shortcut carries (floats, or "
    "what was rounded for the layers), training on labels or not. Ours are of the last epoch; a paper may have chosen "
    "the epoch on the test images. We lose less, or more, where the 95 % interval of our loss lies below, "
    "or above, what the paper states; where it states the spread of several runs, the interval is of the difference. "
    "Numbers of another convention are not judged."
)
STAND_IN = "best"
"""What a number without training is compared with where its method is none of the suite's."""
FLOAT_BITS = 32
BUT_IMAGE = " but image "
AS_STORED = "8 bits", "float"
"""Widths of an image that lose hardly anything of it."""
FLOAT, ROUNDED, NOT_STATED = "float", "rounded", "not stated"
EXTRAS = ("distillation", "damping", "freezing")
"""Parameters of our trainings that papers' methods of the same name do not have."""


@cache
def numbers() -> tuple[tuple[Published, bool], ...]:
    """All papers' numbers, by file, with whether they were trained on labels."""
    return tuple((published.load(published.PATH.with_name(name)), trains) for name, trains in FILES.items())


def convention(number: Number) -> str | None:
    """What the paper does with the first and the last layer, in the words of `treatment`; None where not known."""
    bits = number.match.get("first_last")
    if bits is None:
        return None
    inputs, image = (number.match.get(name) for name in ("first_last_inputs", "image_bits"))
    words = _words(bits) if inputs in (None, bits) else f"weights {_words(bits)}, inputs {_words(inputs)}"
    words += f"{BUT_IMAGE}{_words(image)}" if image else ""
    return treatment(words, number.match["weight_bits"], number.match["act_bits"])


def treatment(edges: str, weight_bits: int, act_bits: int) -> str:
    """What is done to the first and the last layer, in one wording for one thing: `edges` is the parameter of a run.

    >>> treatment("4 bits", 4, 4), treatment("2 bits", 2, 32), treatment("8 bits", 4, 4)
    ('as the rest', 'as the rest', '8 bits')
    >>> treatment("weights 8 bits, inputs float", 2, 2), treatment("weights 8 bits, inputs float", 2, 32)
    ('weights 8 bits, inputs float', '8 bits')

    An image is stored with 8 bits, so one of 8 bits and one of floats are alike:

    >>> treatment("as the rest but image 8 bits", 4, 4), treatment("4 bits but image float", 4, 4)
    ('as the rest but image 8 bits or float', 'as the rest but image 8 bits or float')
    >>> treatment("8 bits but image float", 4, 4), treatment("as the rest but image 8 bits", 4, 32)
    ('8 bits', 'as the rest')
    """
    edges, _, image = edges.partition(BUT_IMAGE)
    weights, separator, inputs = edges.removeprefix("weights ").partition(", inputs ")
    inputs = inputs if separator else weights
    if act_bits == FLOAT_BITS:
        inputs = weights  # which stay float everywhere
    own = f"{weight_bits} bits", f"{weight_bits if act_bits == FLOAT_BITS else act_bits} bits"
    words = weights if weights == inputs else f"weights {weights}, inputs {inputs}"
    if (weights, inputs) == own or edges == "as the rest":
        words, inputs = "as the rest", own[1]
    if not image or act_bits == FLOAT_BITS or image == inputs or {image, inputs} <= set(AS_STORED):
        return words
    return f"{words}{BUT_IMAGE}{' or '.join(AS_STORED) if image in AS_STORED else image}"


def carried(number: Number) -> str:
    """What an identity shortcut carries in the paper: floats wherever inputs of layers are."""
    return FLOAT if number.match.get("act_bits") == FLOAT_BITS else number.carried or NOT_STATED


def _words(bits: int) -> str:
    return "float" if bits == FLOAT_BITS else f"{bits} bits"


def beside(summary: pd.DataFrame) -> pd.DataFrame:
    """A row for each paper's number of a network and data set in `summary`, except those of float networks: `paper`
    (what it calls the method), `source`, `note`, `weight_bits`, `act_bits`, `edges`, `carried`, `trained`, `best`
    (whether its epoch was chosen on the test images), `published`, its `loss` and `half`, half of the 95 % interval
    of the mean of its runs, and of our configuration beside it `label`, `n`, `drop`, `drop_low`, `drop_high`,
    `own_edges`, `own_carried` and the `verdict`. Empty without such a network, and where none of ours has the widths.
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


def _row(number: Number, found: Published, trains: bool, ours: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    edges, loss = convention(number), found.drop(number)
    row, is_alike = _beside(number, edges, trains, ours)
    params = json.loads(row["configuration"]) if row else {}
    half = of_mean(0.0, number.spread, number.runs)[1] if number.runs > 1 else 0.0
    return {
        "paper": number.label,
        "source": number.source,
        "note": number.note,
        "model": number.model,
        "dataset": number.dataset,
        "weight_bits": number.match["weight_bits"],
        "act_bits": number.match["act_bits"],
        "edges": edges or NOT_STATED,
        "carried": carried(number),
        "trained": trains,
        "best": number.best,
        "published": number.value,
        "loss": math.nan if loss is None else loss,
        "half": half,
        "label": row.get("label", ""),
        "n": row.get("n", 0),
        **{name: row.get(name, math.nan) for name in ("top1", "drop", "drop_low", "drop_high")},
        "own_edges": _own_edges(params) if row else "",
        "own_carried": _own_carried(params) if row else "",
        "verdict": _verdict(loss, half, row, is_alike),
    }


def _beside(
    number: Number, edges: str | None, trains: bool, ours: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], bool]:
    """Our configuration beside the number, and whether it is of the same convention: the plain one of the method or,
    without training, of the stand-in; {} where there is none."""
    found = [(row, json.loads(row["configuration"])) for row in ours if row["n"] > 0]
    found = [(row, params) for row, params in found if _is_comparable(number, trains, row, params)]
    same = [one for one in found if one[0]["method"] == number.match["method"] and not _extras(one[1])]
    stand_in = [] if trains else [one for one in found if one[0]["method"] == STAND_IN]
    wanted = edges, carried(number)
    for group in (same, stand_in):
        if alike := [one for one in group if (_own_edges(one[1]), _own_carried(one[1])) == wanted]:
            return min(alike, key=lambda one: _settings(one[1]))[0], True
    return min(same or stand_in, key=lambda one: _settings(one[1]), default=({}, {}))[0], False


def _is_comparable(number: Number, trains: bool, row: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    return (
        ("feed_epochs" in params) == trains
        and (number.model, number.dataset) == (row["model"], row["dataset"])
        and all(params.get(name) == number.match[name] for name in ("weight_bits", "act_bits"))
        and not math.isnan(row["drop"])
    )


def _own_edges(params: Mapping[str, Any]) -> str:
    return treatment(params.get("edges", "as the rest"), params["weight_bits"], params["act_bits"])


def _own_carried(params: Mapping[str, Any]) -> str:
    return FLOAT if params["act_bits"] == FLOAT_BITS else str(params.get("carried", FLOAT))


def _is_set(value: object) -> bool:
    return value not in (None, "None", "", False, 0)


def _extras(params: Mapping[str, Any]) -> list[str]:
    return [name for name in EXTRAS if _is_set(params.get(name))]


def _settings(params: Mapping[str, Any]) -> tuple[bool, int]:
    """What is least for the plain configuration of a method: not continued from wider weights, few settings."""
    return _is_set(params.get("continues")), sum(map(_is_set, params.values()))


def _verdict(loss: float | None, half: float, row: Mapping[str, Any], is_alike: bool) -> str:
    """`half` is that of the 95 % interval of the paper's mean, of other runs than ours."""
    if not row or loss is None:
        return NOT_RUN
    if not is_alike:
        return OTHER
    if row["drop"] + math.hypot(row["drop_high"] - row["drop"], half) < loss:
        return LESS
    return MORE if row["drop"] - math.hypot(row["drop"] - row["drop_low"], half) > loss else ALIKE
