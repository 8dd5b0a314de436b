"""Layer by layer: the widths that were chosen, and what rounding each layer costs by the score that chose them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.compare.widths import GROUP, chosen
from analysis.read.layer_records import TENSORS
from analysis.read.width_records import WidthRecord

Records = Mapping[str, WidthRecord]

DIAGONAL = ("diagonal", "diagonal_standard_error")
UNITS = {
    "noise": "|error of output|² / |output|²",
    "logits": "change of logits, squared",
    "gradient": "change of loss, squared (nats²)",
    "hessian": "mean diagonal of H · |error|² (nats)",
    "loss": "rise of loss (nats)",
}
"""What each score estimates, as docs/methods.md defines it."""


def scored(points: pd.DataFrame, records: Records) -> list[tuple[dict[str, Any], WidthRecord]]:
    """The first chosen run of each network, method and score that recorded what its layers cost, and its record."""
    found: dict[tuple[Any, ...], tuple[dict[str, Any], WidthRecord]] = {}
    for row in chosen(points).to_dict("records"):
        record = records[row["key"]]
        if any(layer.scores[tensor] for layer in record.layers for tensor in TENSORS):
            own = {str(name): value for name, value in row.items()}
            found.setdefault(tuple(row[name] for name in (*GROUP, "by")), (own, record))
    return list(found.values())


def widths(points: pd.DataFrame, records: Records) -> pd.DataFrame:
    """A row for each layer of each chosen run: its bits, and whether they were declared, not chosen."""
    rows = [
        {name: row[name] for name in (*GROUP, "by", "name", "seed", "key")}
        | {"layer": layer.layer, "weight_bits": layer.weight_bits, "input_bits": layer.input_bits}
        | {"declared": layer.declared}
        for row in chosen(points).to_dict("records")
        for layer in records[row["key"]].layers
    ]
    return pd.DataFrame(rows)


def costs(points: pd.DataFrame, records: Records) -> pd.DataFrame:
    """A row for each score, layer, tensor and width: its `cost` in the `unit` of the score, and the mean `diagonal` of
    the Hessian as it was estimated, with its standard error, NaN of other scores."""
    rows = []
    for row, record in scored(points, records):
        of = {name: row[name] for name in GROUP} | {"score": row["by"], "unit": UNITS.get(row["by"], "")}
        for layer in record.layers:
            for tensor in TENSORS:
                trace = layer.traces.get(tensor)
                known = {} if trace is None else dict(zip(DIAGONAL, trace, strict=True))
                rows += [
                    of | {"layer": layer.layer, "tensor": tensor, "bits": bits, "cost": cost} | known
                    for bits, cost in layer.scores[tensor].items()
                ]
    columns = [*GROUP, "score", "unit", "layer", "tensor", "bits", "cost", *DIAGONAL]
    return pd.DataFrame(rows, columns=columns)
