"""What a run recorded of the widths of its layers: `RUNS/KEY/artifacts/widths.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.read.artifacts import json_object, mapping, number, printable_name
from analysis.read.layer_records import MOST_LAYERS, TENSORS

TOTALS = ("mean_weight_bits", "mean_weight_bits_by_layer", "bops", "size_mb")


@dataclass(frozen=True)
class LayerWidth:
    """Bits of a layer's weight and input, 32 for float; whether they were declared; by tensor, "weight" and "input",
    the score at each width, empty where none was computed; and where the score is the Hessian's, its trace by the
    size of the tensor, which is the mean of its diagonal, and the standard error of that."""

    layer: str
    weight_bits: int
    input_bits: int
    declared: bool
    scores: Mapping[str, Mapping[int, float]]
    traces: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class WidthRecord:
    """`totals` has each of TOTALS, NaN where it is none: megabytes, bit operations an image, bits."""

    totals: Mapping[str, float]
    layers: tuple[LayerWidth, ...]


def read_widths(runs: Path, key: str) -> WidthRecord:
    """Of a run. Raises AnalysisError where the file is missing or cannot be used."""
    path = runs / key / "artifacts" / "widths.json"
    content = json_object(path)
    layers = content.get("layers")
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        raise AnalysisError(f"{path.name} lists no layers")
    found = tuple(_layer(layer, path) for layer in layers[:MOST_LAYERS])
    return WidthRecord({name: number(content.get(name)) for name in TOTALS}, found)


def _layer(layer: Mapping[str, Any], path: Path) -> LayerWidth:
    bits = [layer[name] for name in ("weight_bits", "input_bits") if type(layer.get(name)) is int]
    if len(bits) != 2 or not all(1 <= width <= 32 for width in bits):
        raise AnalysisError(f"{path.name} has a layer whose weight or input has no width")
    scores = mapping(layer.get("scores"))
    by_tensor = {tensor: _scores(mapping(scores.get(tensor))) for tensor in TENSORS}
    hessian = mapping(layer.get("hessian"))
    traces = {tensor: _trace(mapping(hessian[tensor])) for tensor in TENSORS if tensor in hessian}
    declared = layer.get("declared") is True
    weight_bits, input_bits = bits
    name = printable_name(layer.get("name"))
    return LayerWidth(name, weight_bits, input_bits, declared, by_tensor, traces)


def _trace(found: Mapping[str, Any]) -> tuple[float, float]:
    return number(found.get("trace")), number(found.get("standard_error"))


def _scores(found: Mapping[str, Any]) -> dict[int, float]:
    known = {bits: number(score) for bits, score in found.items() if bits.isdecimal() and len(bits) < 3}
    return {int(bits): score for bits, score in known.items() if not math.isnan(score)}
