"""Runs that an older version recorded, brought to the parameters of today.

It wrote a method's `momentum`, that of its moving average, as that of the training. Today it is `method_momentum`,
and `momentum` is the training's alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

AVERAGING = ("percentile", "qat_asymmetric", "qat_symmetric")
"""The methods that had a `momentum` then."""


def stages_as_today(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stages of a plan; the training's momentum is that of a recipe's float stage."""
    params = {stage["key"]: stage["params"] for stage in stages}
    return [
        {**stage, "params": _params(stage["params"], params.get(next(iter(stage["needs"]), ""), {}))}
        for stage in stages
    ]


def table_as_today(table: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of an older runs.csv, or None where the table has nothing older. Its `DERIVED` columns stay."""
    if "momentum" not in table or "method_momentum" in table:
        return None
    rows = table[["method", "momentum"]].to_dict("records")
    by_key = dict(zip(table["key"], rows, strict=True))
    found = [_params(row, by_key.get(of, {})) for of, row in zip(table["start"], rows, strict=True)]
    names = ("momentum", "method_momentum")
    columns = {
        name: pd.Series([row.get(name) for row in found], index=table.index, dtype=object) for name in names
    }
    return table.assign(**columns)


def _params(params: Mapping[str, Any], float_stage: Mapping[str, Any]) -> dict[str, Any]:
    if params.get("method") not in AVERAGING or "momentum" not in params or "method_momentum" in params:
        return dict(params)
    moved = {name: value for name, value in params.items() if name != "momentum"}
    if float_stage.get("momentum") is not None:
        moved["momentum"] = float_stage["momentum"]
    return {**moved, "method_momentum": params["momentum"]}
