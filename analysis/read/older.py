"""Runs that an older version recorded, brought to the parameters of today.

It wrote a method's `momentum`, that of its moving average, as that of the training. Today it is `method_momentum`,
and `momentum` is the training's alone. It also wrote of each scheme that its first and last layer are as the rest, and
left widths by layer at those of their method (`budgets`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.read.budgets import by_budget, table_by_budget

FLOAT_BITS = 32
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
    found = table
    for as_today in (_with_momentum, _with_edges, table_by_budget):
        found = as_today(found)
    return None if found is table else found


def _with_edges(table: pd.DataFrame) -> pd.DataFrame:
    if "edges" not in table:
        return table
    edges = [_edges(row) for row in table.to_dict("records")]
    changed = any(new != old for new, old in zip(edges, table["edges"], strict=True) if isinstance(new, str))
    return table.assign(edges=edges) if changed else table


def _with_momentum(table: pd.DataFrame) -> pd.DataFrame:
    if "momentum" not in table or "method_momentum" in table:
        return table
    rows = table[["method", "momentum"]].to_dict("records")
    by_key = dict(zip(table["key"], rows, strict=True))
    found = [_params(row, by_key.get(of, {})) for of, row in zip(table["start"], rows, strict=True)]
    names = ("momentum", "method_momentum")
    columns = {
        name: pd.Series([row.get(name) for row in found], index=table.index, dtype=object) for name in names
    }
    return table.assign(**columns)


def _edges(params: Mapping[str, Any]) -> Any:
    """How the first and the last layer are treated; of `mixed`, as its method does."""
    bits = params.get("first_last") if params.get("method") == "scheme" else None
    if params.get("method") == "mixed":
        found = re.match(r"scheme\b.* first last (\d+)", str(params.get("of")))
        bits = found[1] if found else None
    is_older = params["edges"] == "as the rest" and str(bits).removesuffix(".0").isdigit()
    if not is_older:
        return params["edges"]
    return "float" if (whole := int(float(str(bits)))) == FLOAT_BITS else f"{whole} bits"


def _params(params: Mapping[str, Any], float_stage: Mapping[str, Any]) -> dict[str, Any]:
    params = {**params, "edges": _edges(params)} if "edges" in params else params
    params = by_budget(params)
    if params.get("method") not in AVERAGING or "momentum" not in params or "method_momentum" in params:
        return dict(params)
    moved = {name: value for name, value in params.items() if name != "momentum"}
    if float_stage.get("momentum") is not None:
        moved["momentum"] = float_stage["momentum"]
    return {**moved, "method_momentum": params["momentum"]}
