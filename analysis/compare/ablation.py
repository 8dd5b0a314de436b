"""What each switch between a published procedure and a corrected one costs: chains and paired differences.

A chain is a run of recipes in plan order of which each differs from the one before by a single parameter; so a
difference in accuracy is that of the switch. Two recipes are compared image by image on the same test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare.roles import source_title
from analysis.compare.significance import correct, paired
from analysis.read.run_folders import parameters

COLUMNS = ("chain", "switch", "key", "name", "top1", "difference", "low", "high", "p", "published", "trained")
FOLLOWING = ("param_name", "batch_norm", "edges")
"""Parameters that follow from others in every recipe of a chain."""


def steps(marked: pd.DataFrame, comparison: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """One row a recipe of every chain, with columns COLUMNS.

    `difference` is its top-1 minus that of the recipe before, of the first minus that of its float network, in points;
    low..high its 95 % interval and `p` the exact McNemar test's, from paired images; NaN where a run is not done.
    `published` names the numbers that the first recipe re-runs, `trained` is whether the recipe is itself a training.
    """
    rows: list[dict[str, Any]] = []
    for number, chain in enumerate(chains(marked)):
        before: dict[str, Any] | None = None
        for row in chain:
            switch = "as published" if before is None else _switch(before, row, _names(marked))
            line = {
                "chain": number,
                "switch": switch,
                **{name: row[name] for name in ("key", "name", "top1")},
            }
            line["published"] = _published(row, comparison) if before is None else ""
            line["trained"] = pd.notna(row.get("feed_epochs"))
            earlier = row["start"] if before is None else before["key"]
            rows.append(line | paired(correct(runs, earlier), correct(runs, row["key"])))
            before = row
    return pd.DataFrame(rows, columns=list(COLUMNS))


def chains(marked: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """Recipes in plan order, cut where the next differs by more than one parameter (widths and switches alike)."""
    names = _names(marked)
    result: list[list[dict[str, Any]]] = []
    for row in marked[marked["kind"] == "Recipe"].to_dict("records"):
        last = result[-1][-1] if result else None
        if last is not None and len(_changed(last, row, names)) == 1:
            result[-1].append(row)
        else:
            result.append([row])
    return result


def title(first: Mapping[str, Any]) -> str:
    """The title of a chain: the method and the widths that its `first` recipe is named by.

    >>> title({"name": "linear w8 no weights evaluated batch statistics seed 0"})
    'linear w8'
    """
    return " ".join(first["name"].split()[:2])


def _names(marked: pd.DataFrame) -> list[str]:
    return [name for name in parameters(marked) if name not in FOLLOWING]


def _changed(one: dict[str, Any], other: dict[str, Any], names: list[str]) -> list[str]:
    # None beside None, and NaN beside NaN, is no difference.
    changed = [name for name in names if repr(one[name]) != repr(other[name])]
    fed = [name for name in changed if name.startswith("feed_") and one[name] is None]
    return (
        ["feed_images", *(name for name in changed if name not in fed)] if "feed_images" in fed else changed
    )


def _switch(before: dict[str, Any], row: dict[str, Any], names: list[str]) -> str:
    (name,) = _changed(before, row, names)
    words = name.replace("_", " ").removeprefix("feed ")
    old, new = before[name], row[name]
    if old is None:
        return f"calibrated on {new} {words}"
    if isinstance(new, bool):
        return f"{words}: {'on' if new else 'off'}"
    return f"{words}: {old} → {new}"


def _published(row: dict[str, Any], comparison: pd.DataFrame) -> str:
    mine = comparison[
        (comparison["configuration"] == row["configuration"]) & (comparison["metric"] == "top1")
    ]
    return "; ".join(
        f"{one['published_label']}, {source_title(one['source'])}: {one['published']:.2f}"
        for one in mine.to_dict("records")
    )
