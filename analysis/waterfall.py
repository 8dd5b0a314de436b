"""What each switch between a published procedure and a corrected one costs: chains, paired differences, a figure.

A chain is a run of recipes in plan order of which each differs from the one before by a single parameter; so a
difference in accuracy is that of the switch. Two recipes are compared image by image on the same test images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.frame import parameters
from analysis.significance import correct, paired
from analysis.styles import BASELINE, QUIET, RC
from analysis.wording import chance

FOLLOWING = ("param_name", "batch_norm", "edges")
"""Parameters that follow from others in every recipe of a chain."""
BETTER, WORSE = "#0072B2", "#D55E00"
COLUMNS = ("chain", "switch", "key", "name", "top1", "difference", "low", "high", "p", "published", "trained")


def steps(marked: pd.DataFrame, comparison: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """One row a recipe of every chain, with columns COLUMNS.

    `difference` is its top-1 minus that of the recipe before, of the first minus that of its float network, in points;
    low..high its 95 % interval and `p` the exact McNemar test's, from paired images; NaN where a run is not done.
    `published` says which numbers the first recipe re-runs, `trained` whether the recipe is a training of its own.
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
    told = [
        f"{one['source']} {one['published_label']}: {one['published']:.2f}" for one in mine.to_dict("records")
    ]
    return "; ".join(told)


def markdown(table: pd.DataFrame) -> str:
    """The steps as Markdown, one small table a chain."""
    parts = []
    for _, chain in table.groupby("chain"):
        first = chain.iloc[0]
        head = f"**{title(first)}**" + (f" ({first['published']})" if first["published"] else "")
        lines = ["| switch | top-1 % | change | 95 % | p |", "| --- | ---: | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(cells(row))} |" for row in chain.to_dict("records")]
        parts.append("\n".join([head, "", *lines]))
    note = (
        "Change: points of top-1 from the line above, of the first from the float network, paired over the test "
        "images; p: exact McNemar test."
    )
    if table["trained"].any():
        note += " Each line is a training of its own: what another seed would have changed, the images do not tell."
    return "\n\n".join([*parts, note]) + "\n"


def title(first: Mapping[str, Any]) -> str:
    """What a chain is called: the method and the widths that its first recipe is named by.

    >>> title({"name": "linear w8 no weights evaluated batch statistics seed 0"})
    'linear w8'
    """
    return " ".join(first["name"].split()[:2])


def cells(row: dict[str, Any]) -> list[str]:
    """A row of `steps` in words: switch, top-1, change, interval, p."""
    top1 = "not run" if math.isnan(row["top1"]) else f"{row['top1']:.2f}"
    if math.isnan(row["difference"]):
        return [row["switch"], top1, "", "", ""]
    interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
    return [row["switch"], top1, f"{row['difference']:+.2f}", interval, chance(row["p"])]


def figure(table: pd.DataFrame, baseline: float) -> Figure:
    """A panel a chain: each switch as a bar from the accuracy before it to that after it; `baseline` is float's."""
    panels = [chain for _, chain in table.groupby("chain")]
    with matplotlib.rc_context(RC):
        heights = [len(chain) + 1.4 for chain in panels]
        figure = Figure(figsize=(9.6, 0.34 * sum(heights) + 0.6), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)
        for axes, chain in zip(grid[:, 0], panels, strict=True):
            _panel(axes, chain.to_dict("records"), baseline)
        grid[-1, 0].set_xlabel("top-1 (%); bars: change by the switch, with its 95 % interval; dashed: float")
    return figure


def _panel(axes: Axes, rows: list[dict[str, Any]], baseline: float) -> None:
    first = rows[0]
    axes.set_title(title(first) + (f"   (published, {first['published']})" if first["published"] else ""))
    axes.axvline(baseline, color=BASELINE, linestyle="--", linewidth=1)
    axes.set_xlim(-4, 118)
    axes.set_xticks(range(0, 101, 10))
    axes.set_yticks(range(len(rows)), [row["switch"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    before = math.nan
    for place, row in enumerate(rows):
        if math.isnan(row["top1"]):
            axes.text(1, place, "not run", va="center", color=QUIET)
        elif math.isnan(before + row["difference"]):
            axes.barh(place, row["top1"], height=0.6, color="#b8b8b8")
        else:
            colour = BETTER if row["difference"] >= 0 else WORSE
            axes.barh(place, row["difference"], left=before, height=0.6, color=colour)
            half = (row["high"] - row["low"]) / 2
            axes.errorbar(row["top1"], place, xerr=half, color=BASELINE, capsize=2, linewidth=1)
            axes.plot([row["top1"]] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        if not math.isnan(row["top1"]):
            change = "" if math.isnan(row["difference"]) else f"  ({row['difference']:+.2f})"
            axes.text(102, place, f"{row['top1']:.2f}{change}", va="center")
        if place and not math.isnan(before):
            axes.plot([before] * 2, [place - 1, place], color=QUIET, linewidth=0.8)
        before = row["top1"]
