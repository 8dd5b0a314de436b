"""What runs recorded below their accuracy: the layers and the confusions of the few that are shown.

What is read: `RUNS/KEY/artifacts/layers.json` and `confusion.json`, of at most MOST configurations of a network, so
that a sweep of thousands costs no more than a small one. A file that cannot be used leaves a hole and its reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.draw.cost import point
from analysis.errors import AnalysisError
from suite.record import files

FORMAT = 1
MOST = 20
NEAREST = 4
"""Bits of a weight: where the methods part."""
KEPT = 0.5
"""The part of float's top-1 below which a network is taken to have collapsed."""
LONGEST_NAME = 40
MOST_LAYERS = 400
MOST_CLASSES = 2000
TENSORS = ("weight", "input")
COLUMNS = (
    *("model", "dataset", "configuration", "layer", "tensor", "sqnr_db"),
    *("low", "low_inner", "high_inner", "high", "smallest", "largest", "counts"),
)
Counts = NDArray[np.int64]


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
            rows += [names | told for told in _layers(runs / row["key"] / "artifacts" / "layers.json")]
            problems.append(None)
        except AnalysisError as problem:
            problems.append(str(problem))
    layers = pd.DataFrame(rows, columns=list(COLUMNS))
    found = (
        _confusion(runs, group, marked, first)
        for _, group in summary.groupby(["model", "dataset"], sort=False)
    )
    confusions = tuple(one for one in found if one is not None)
    return Evidence(shown.assign(problem=pd.Series(problems, shown.index, dtype=object)), layers, confusions)


def choose(summary: pd.DataFrame) -> pd.DataFrame:
    """At most MOST rows of each network, with `point`: every label at its width nearest to NEAREST bits, then every
    label at its next, as long as all fit."""
    kept: list[Any] = []
    for _, group in summary.groupby(["model", "dataset"], sort=False):
        far = (group["weight_bits"] - NEAREST).abs() + (group["act_bits"] - NEAREST).abs() / 100
        turn = far.groupby(group["label"]).rank(method="first")
        for number in range(1, MOST + 1):
            these = group.index[turn == number]
            if number > 1 and len(group.index[turn <= number]) > MOST:
                break
            kept += list(these[:MOST])
    chosen = summary[summary.index.isin(kept)]
    return chosen.assign(point=[point(row) for row in chosen.to_dict("records")])


def _layers(path: Path) -> Iterator[dict[str, Any]]:
    told = _object(path).get("layers")
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise AnalysisError(f"{path.name} lists no layers")
    rows = [
        {"layer": _name(one.get("name")), "tensor": tensor} | _record(one.get(tensor))
        for one in told[:MOST_LAYERS]
        for tensor in TENSORS
    ]
    return iter(rows)


def _record(told: Any) -> dict[str, Any]:
    told = told if isinstance(told, Mapping) else {}
    span, histogram = (_mapping(told.get(name)) for name in ("range", "histogram"))
    (low, low_inner), (high_inner, high) = (_pair(span.get(name)) for name in ("low", "high"))
    counts = histogram.get("counts")
    usable = isinstance(counts, list) and counts and all(type(n) is int and 0 <= n < 2**53 for n in counts)
    smallest, largest = _number(histogram.get("low")), _number(histogram.get("high"))
    usable = usable and smallest < largest
    return {
        "sqnr_db": _number(told.get("sqnr_db")),
        **{"low": low, "low_inner": low_inner, "high_inner": high_inner, "high": high},
        **{"smallest": smallest, "largest": largest},
        "counts": np.array(counts, dtype=np.int64) if usable else None,
    }


def _name(value: Any) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:LONGEST_NAME])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pair(value: Any) -> tuple[float, float]:
    low, high = value if isinstance(value, list) and len(value) == 2 else (None, None)
    return _number(low), _number(high)


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and abs(value) < 1e30 else math.nan


def _confusion(
    runs: Path, group: pd.DataFrame, marked: pd.DataFrame, first: pd.DataFrame
) -> Confusion | None:
    """The confusion of the float network, beside that of the recipe of the lowest top-1 that kept KEPT of it."""
    tops = dict(zip(marked["key"], marked["top1"], strict=True))
    network = "{model} on {dataset}".format(**group.iloc[0])
    rows = [(name, first.loc[name]) for name in group["configuration"] if name in first.index]
    recipes = [(name, row) for name, row in rows if row["method"] != "float"]
    recipes = [(name, row) for name, row in recipes if row["top1"] >= KEPT * tops.get(row["start"], math.inf)]
    recipes.sort(key=lambda found: float(found[1]["top1"]))
    names = dict(zip(group["configuration"], map(point, group.to_dict("records")), strict=True))
    for name, row in recipes[:MOST]:
        try:
            classes, before = _matrix(runs, row["start"])
            same, after = _matrix(runs, row["key"])
        except AnalysisError:
            continue
        if classes == same:
            return Confusion(network, classes, before, after, names[name], row["top1"])
    for _, row in rows:
        if row["method"] == "float":
            try:
                return Confusion(network, *_matrix(runs, row["key"]))
            except AnalysisError:
                continue
    return None


def _matrix(runs: Path, key: str) -> tuple[tuple[str, ...], Counts]:
    """(names of the classes, int64 [classes, classes]) of a run."""
    path = runs / str(key) / "artifacts" / "confusion.json"
    told = _object(path)
    rows, names = told.get("rows"), told.get("names")
    if not isinstance(rows, list) or not 2 <= len(rows) <= MOST_CLASSES:
        raise AnalysisError(f"{path.name} has no rows of classes")
    counts = np.zeros((len(rows), len(rows)), dtype=np.int64)
    try:
        for true, row in enumerate(rows):
            for predicted, images in row.items():
                if type(images) is not int or not 0 <= images < 2**40 or not 0 <= int(predicted) < len(rows):
                    raise ValueError(f"{predicted!r}: {images!r}")
                counts[true, int(predicted)] = images
    except (AttributeError, ValueError) as error:
        raise AnalysisError(f"{path.name} has a row that is no counts of images ({error})") from None
    usable = isinstance(names, list) and len(names) == len(rows)
    return tuple(map(_name, names if usable and names else range(len(rows)))), counts


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(files.read_bytes(path))
    except FileNotFoundError:
        raise AnalysisError(f"{path.name} was not recorded") from None
    except OSError as error:
        raise AnalysisError(f"{path.name} {error}") from None
    except (ValueError, RecursionError):
        raise AnalysisError(f"{path.name} is torn") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise AnalysisError(f"{path.name} is not of format {FORMAT}")
    return value
