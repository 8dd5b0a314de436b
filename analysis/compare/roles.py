"""What a configuration is: what its source ran, what its method's name says, or a mean over random choices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from analysis.read import published
from analysis.read.budgets import METHOD, RANDOM
from analysis.read.published import Published


@cache
def _published() -> Published:
    return published.load()


def is_sound(row: Mapping[str, Any]) -> bool:
    """Whether a configuration has the parameters with which its method does what its name says."""
    wanted = _published().sound.get(row["method"], {})
    parameters = _parameters(row)
    return wanted is not False and all(parameters.get(name) == value for name, value in wanted.items())


def are_sound(configurations: pd.DataFrame) -> pd.Series[bool]:
    """Of each row of a table of configurations whether it is sound."""
    found = [is_sound(row) for row in configurations.to_dict("records")]
    return pd.Series(found, configurations.index, dtype=bool)


def is_drawn(row: Mapping[str, Any]) -> bool:
    """Whether its runs differ by their random widths: their mean is no network that one could choose."""
    return bool(row["method"] == METHOD and _parameters(row).get("by") == RANDOM)


def are_drawn(configurations: pd.DataFrame) -> pd.Series[bool]:
    """The same of each row of a table of configurations."""
    found = [is_drawn(row) for row in configurations.to_dict("records")]
    return pd.Series(found, configurations.index, dtype=bool)


def _parameters(row: Mapping[str, Any]) -> Mapping[str, Any]:
    # Exported in bfloat16 it is `{...}, bfloat16`.
    parameters: Mapping[str, Any] = json.JSONDecoder().raw_decode(row["configuration"])[0]
    return parameters


def source_title(source: str) -> str:
    """A source by its title and its number, for where nothing else says which it is.

    >>> source_title("002")
    'Handwritten-Quantization (002)'
    """
    return _published().title(source)


def reruns(comparison: pd.DataFrame) -> dict[str, set[str]]:
    """By source the quantized configurations that re-run one of its published numbers."""
    found: dict[str, set[str]] = {}
    if len(comparison):
        known = comparison[comparison["configuration"].notna() & (comparison["label"] != "float")]
        for source, rows in known.groupby("source"):
            found[str(source)] = set(rows["configuration"])
    return found
