"""What was measured of a run's layers: `RUNS/KEY/artifacts/sensitivity.json`, of `suite sensitivity` or a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.read.artifacts import json_object, mapping, number, printable_name
from analysis.read.layer_records import MOST_LAYERS, TENSORS

SCORES = ("noise", "logits", "gradient", "hessian")
TRUTHS = ("loss_alone", "loss_all_but")
COSTS = (*SCORES, "loss_alone", "top1_alone", "loss_all_but", "top1_all_but")
RANKS = ("rho", "low", "high")
MOST_WIDTHS = 16


@dataclass(frozen=True)
class SensitivityRecord:
    """`costs`: a row for each layer, tensor and width with COSTS, NaN where one was not measured; `ranks`: a row for
    each score, truth, tensor and width with RANKS, Spearman's rho and its 95 % interval, and `layers`, how many.
    `images`: training images; `loss` and `top1` of the float network on them."""

    images: int
    loss: float
    top1: float
    costs: pd.DataFrame
    ranks: pd.DataFrame


def read_sensitivity(runs: Path, key: str) -> SensitivityRecord | None:
    """Of a run; None where it was not measured. Raises AnalysisError where the file cannot be used."""
    path = runs / key / "artifacts" / "sensitivity.json"
    if not path.exists():
        return None
    content = json_object(path)
    measured = mapping(content.get("float"))
    costs = [_cost(row) for row in _rows(content, "costs", path)]
    ranks = [_rank(row) for row in _rows(content, "correlations", path)]
    if not costs:
        raise AnalysisError(f"{path.name} lists no costs")
    images = content.get("images")
    return SensitivityRecord(
        images if type(images) is int else 0,
        number(measured.get("loss")),
        number(measured.get("top1")),
        pd.DataFrame(costs, columns=["layer", "tensor", "bits", *COSTS]),
        pd.DataFrame(ranks, columns=["score", "truth", "tensor", "bits", "layers", *RANKS]),
    )


def _rows(content: Mapping[str, Any], name: str, path: Path) -> list[Mapping[str, Any]]:
    rows = content.get(name)
    if not isinstance(rows, list) or not all(_is_of_a_tensor(row) for row in rows):
        raise AnalysisError(f"{path.name} has {name} that are none of a tensor and a width")
    return rows[: MOST_LAYERS * len(TENSORS) * MOST_WIDTHS]


def _is_of_a_tensor(row: Any) -> bool:
    if not isinstance(row, Mapping):
        return False
    bits = row.get("bits")
    return row.get("tensor") in TENSORS and type(bits) is int and 1 <= bits <= 32


def _cost(row: Mapping[str, Any]) -> dict[str, Any]:
    place = {"layer": printable_name(row.get("layer")), "tensor": row["tensor"], "bits": row["bits"]}
    return place | {name: number(row.get(name)) for name in COSTS}


def _rank(row: Mapping[str, Any]) -> dict[str, Any]:
    place: dict[str, Any] = {
        "score": printable_name(row.get("score")),
        "truth": printable_name(row.get("truth")),
    }
    place |= {"tensor": row["tensor"], "bits": row["bits"], "layers": number(row.get("layers"))}
    return place | {name: number(row.get(name)) for name in RANKS}
