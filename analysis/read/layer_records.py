"""What a run recorded of its layers and of confused classes: `RUNS/KEY/artifacts/layers.json` and `confusion.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.errors import AnalysisError
from analysis.read.artifacts import json_object, mapping, number, printable_name

MOST_LAYERS = 400
MOST_CLASSES = 2000
TENSORS = ("weight", "input")
COLUMNS = (
    *("model", "dataset", "configuration", "layer", "tensor", "sqnr_db"),
    *("low", "low_inner", "high_inner", "high", "smallest", "largest", "counts"),
)
Counts = NDArray[np.int64]


def read_layers(runs: Path, key: str) -> list[dict[str, Any]]:
    """A row for each layer and tensor of a run, with the last of COLUMNS from `layer` on; NaN and None where nothing
    usable was recorded. Raises AnalysisError where the file cannot be used."""
    path = runs / key / "artifacts" / "layers.json"
    layers = json_object(path).get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise AnalysisError(f"{path.name} lists no layers")
    return [
        {"layer": printable_name(layer.get("name")), "tensor": tensor} | _tensor(mapping(layer.get(tensor)))
        for layer in layers[:MOST_LAYERS]
        for tensor in TENSORS
    ]


def read_confusion(runs: Path, key: str) -> tuple[tuple[str, ...], Counts]:
    """(names of the classes, images by true and predicted class, int64 [classes, classes]) of a run. Raises
    AnalysisError where the file cannot be used."""
    path = runs / str(key) / "artifacts" / "confusion.json"
    record = json_object(path)
    rows, names = record.get("rows"), record.get("names")
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
    return tuple(map(printable_name, names if usable and names else range(len(rows)))), counts


def _tensor(record: Mapping[str, Any]) -> dict[str, Any]:
    span, histogram = (mapping(record.get(name)) for name in ("range", "histogram"))
    (low, low_inner), (high_inner, high) = (_pair(span.get(name)) for name in ("low", "high"))
    counts = histogram.get("counts")
    usable = isinstance(counts, list) and counts and all(type(n) is int and 0 <= n < 2**53 for n in counts)
    smallest, largest = number(histogram.get("low")), number(histogram.get("high"))
    usable = usable and smallest < largest
    return {
        "sqnr_db": number(record.get("sqnr_db")),
        **{"low": low, "low_inner": low_inner, "high_inner": high_inner, "high": high},
        **{"smallest": smallest, "largest": largest},
        "counts": np.array(counts, dtype=np.int64) if usable else None,
    }


def _pair(value: Any) -> tuple[float, float]:
    low, high = value if isinstance(value, list) and len(value) == 2 else (None, None)
    return number(low), number(high)
