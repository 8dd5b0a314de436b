"""A panel of few configurations: what each costs as a bar, and what it loses in words."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.compare.configurations import point
from analysis.compare.pareto import LATENCY, SIZE
from analysis.draw.axes import minus
from analysis.draw.style import style_of

FEW = 3
"""Points that say less as points than as bars: among so few a front is no choice."""
UNITS = {SIZE: "MB", LATENCY: "ms"}
LETTERS, NARROW_LETTERS = 28, 40
"""Of a line of a name: beside its bar, and above it."""
ROW_INCHES, NARROW_ROW_INCHES, FRAME_INCHES = 0.42, 0.6, 1.1


def is_few(rows: pd.DataFrame) -> bool:
    """Whether the configurations of a panel are drawn as bars."""
    return 0 < len(rows) <= FEW


def height(rows: pd.DataFrame, narrow: bool) -> float:
    """Inches of a panel of these."""
    return (NARROW_ROW_INCHES if narrow else ROW_INCHES) * len(rows) + FRAME_INCHES


def panel(axes: Axes, rows: pd.DataFrame, cost: str, *, narrow: bool) -> None:
    """Draw the bars, the smallest `cost` on top; beside each its cost, top-1 and drop with its interval. In a `narrow`
    panel names stand above their bars, and beside these are cost and drop alone."""
    ordered = rows.sort_values([cost, "top1"], ascending=[True, False]).to_dict("records")
    names = [
        textwrap.fill(point(row), NARROW_LETTERS if narrow else LETTERS, break_on_hyphens=False)
        for row in ordered
    ]
    beside = axes.get_yaxis_transform()
    for y, (row, name) in enumerate(zip(ordered, names, strict=True)):
        axes.barh(y, row[cost], height=0.3 if narrow else 0.6, color=style_of(row["method"]).colour)
        axes.text(1.02, y, _words(row, cost, narrow=narrow), transform=beside, va="center")
        if narrow:
            axes.text(0.015, y - 0.18, name, transform=beside, va="bottom")
    axes.set_yticks(range(len(ordered)), [""] * len(names) if narrow else names)
    axes.set_ylim(len(ordered) - 0.5, -0.85 if narrow else -0.5)
    axes.locator_params(axis="x", nbins=4 if narrow else 8)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _words(row: dict[str, Any], cost: str, *, narrow: bool) -> str:
    """`0.587 ms, top-1 92.60 %, drop 0.20 (-0.60 to 1.00)`, of a float network without its drop."""
    words = [f"{row[cost]:.3g} {UNITS[cost]}", f"top-1 {row['top1']:.2f} %"]
    if row["method"] != "float" or row["drop"]:
        words.append(f"drop {_points(row['drop'])}")
        if narrow:
            del words[1]
        elif not math.isnan(row["drop_low"]):
            words[-1] += f" ({_points(row['drop_low'])} to {_points(row['drop_high'])})"
    return minus((",\n" if narrow else ", ").join(words))


def _points(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"
