"""Runs with a width for each layer are known by the mean widths of their budget.

A plan names the widths of the method whose layers got others: of a budget of 2.5 bits it says 3, as of one of 3 bits.
Here both stand at their budget, so that tables and figures put each beside what is of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

METHOD = "mixed"
UNIFORM, RANDOM = "uniform", "random"
WIDTHS = ("weight_bits", "act_bits")
WIDEST = 32


def by_budget(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run. Of chosen and random widths, `weight_bits` is the mean bits of a weight within the
    budget, and `act_bits` what the budget of bit operations leaves to an input; a run without both budgets keeps those
    of its method. `draw_seed` is of random widths alone: it changes no others.

    >>> found = by_budget({"method": "mixed", "by": "noise", "weight_bits": 3, "act_bits": 3, "size_bits": 2.5,
    ...                    "bops_per_mac": 6.25})
    >>> found["weight_bits"], found["act_bits"]
    (2.5, 2.5)
    """
    found = dict(params)
    if params.get("method") != METHOD:
        return found
    if params.get("by") != RANDOM and "draw_seed" in params:
        found["draw_seed"] = None
    size: Any = params.get("size_bits")
    bops: Any = params.get("bops_per_mac")
    if (
        params.get("by") != UNIFORM
        and _is_width(size)
        and type(bops) in (int, float)
        and _is_width(bops / size)
    ):
        found |= {"weight_bits": _plain(size), "act_bits": _plain(bops / size)}
    return found


def table_by_budget(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a runs.csv, the same table where all are at their budget already."""
    if not (table["method"] == METHOD).any():
        return table
    rows = table.to_dict("records")
    names = [name for name in (*WIDTHS, "draw_seed") if name in table]
    found = [by_budget({str(name): value for name, value in row.items()}) for row in rows]
    if not any(new[name] != row[name] for new, row in zip(found, rows, strict=True) for name in names):
        return table
    columns = {name: pd.Series([row[name] for row in found], table.index, dtype=object) for name in names}
    return with_widths(table.assign(**columns))


def with_widths(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns of WIDTHS as int64 or, where one lies between two whole numbers, as whole and other
    numbers: 4 stays 4 beside 2.5. Raises ValueError, TypeError or OverflowError for what is no number."""
    columns = {}
    for name in WIDTHS if len(table) else ():
        values = [_plain(value) for value in table[name]]
        kind = "int64" if all(isinstance(value, int) for value in values) else "object"
        columns[name] = pd.Series(values, table.index, dtype="object").astype(kind)
    return table.assign(**columns)


def _plain(value: Any) -> int | float:
    """
    >>> _plain(4.0), _plain(16 / 3), _plain(7)
    (4, 5.33, 7)
    """
    if isinstance(value, int):
        return value
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value!r} is no width")
    return int(number) if number.is_integer() else round(number, 2)


def _is_width(bits: Any) -> bool:
    return type(bits) in (int, float) and 1 <= bits <= WIDEST
