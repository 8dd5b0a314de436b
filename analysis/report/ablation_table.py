"""The table of an ablation."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.compare.ablation import title
from analysis.report.wording import chance


def markdown(table: pd.DataFrame) -> str:
    """The steps as Markdown, one small table a chain."""
    parts = []
    for _, chain in table.groupby("chain"):
        first = chain.iloc[0]
        head = f"**{title(first)}**" + (f", published as {first['published']}" if first["published"] else "")
        lines = ["| switch | top-1 % | change | 95 % | p |", "| --- | ---: | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(cells(row))} |" for row in chain.to_dict("records")]
        parts.append("\n".join([head, "", *lines]))
    note = (
        "Change: points of top-1 from the line above, of the first from the float network, paired over the test "
        "images; p: exact McNemar test."
    )
    if table["trained"].any():
        note += " Each line is a training of its own: p does not cover what another seed would have changed."
    return "\n\n".join([*parts, note]) + "\n"


def cells(row: dict[str, Any]) -> list[str]:
    """A row of `steps` in words: switch, top-1, change, interval, p."""
    top1 = "not run" if math.isnan(row["top1"]) else f"{row['top1']:.2f}"
    if math.isnan(row["difference"]):
        return [row["switch"], top1, "", "", ""]
    interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
    return [row["switch"], top1, f"{row['difference']:+.2f}", interval, chance(row["p"])]
