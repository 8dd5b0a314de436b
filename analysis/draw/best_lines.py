"""A panel of the best methods: drop from float by bits on a logarithmic axis, each line named at its end."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from analysis.compare.configurations import PHRASES
from analysis.draw import lines
from analysis.draw.axes import drops, shown, spread_out
from analysis.draw.lines import Record
from analysis.draw.style import QUIET, line_styles

MOST = 8
"""Lines of a panel: more could not be distinguished."""
EASY_BITS = 8
"""From this width up hardly a method loses anything: which of them is first there is mostly chance."""
MARKER_LETTERS = 2.5
"""The room of the marker before a name, in letters."""
ENDS = re.compile(PHRASES["edges"].format("") + "[^,]*(?:, inputs [^,]*)?")
"""What a line's name says of the first and the last layer."""
LETTERS = 26
"""Of a line of a name; a longer name goes on below."""
LINE = 1.25 / 72
"""Inches from a line of a name to the next, for each point of the letters' size."""


def best(rows: Sequence[Record]) -> tuple[list[str], int]:
    """The names of at most MOST lines, in the order of `rows`, and how many lines there are.

    At each width, narrow ones first, the line with the smallest drop is taken, then at each the second, and so on; the
    widths from EASY_BITS up count when all lines of narrower ones are taken. So no line is taken while another
    that is better at each of its widths is left out.
    """
    table = pd.DataFrame([row for row in rows if row["n"] and row["drop"] == row["drop"]])
    if not len(table):
        return [], 0
    table["place"] = table.groupby("weight_bits")["drop"].rank(method="first")
    table["is_easy"] = table["weight_bits"] >= EASY_BITS
    order = table.sort_values(["is_easy", "place", "weight_bits"])["line"].unique()
    chosen, every = set(order[:MOST]), table["line"].unique()
    return [name for name in every if name in chosen], len(every)


def panel(axes: Axes, rows: Sequence[Record], title: str, letters: int) -> None:
    """Draw the best lines of `rows`, configurations with their `line`; `name_ends` names them. `letters` have room in
    a line of the title."""
    names, count = best(rows)
    which = f"the best {len(names)} of {count}" if count > len(names) else ""
    fits = len(title.splitlines()[-1]) + len(which) + 2 <= letters
    axes.set_title(title + (", " if fits else ",\n") * bool(which) + which)
    drawn = [row for row in rows if row["line"] in names]
    places = lines.positions(drawn or rows)
    lines.ticks(axes, places)
    styles = line_styles((row["method"], row["line"]) for row in drawn)
    values: list[float] = []
    for (_, name), style in styles.items():
        values += lines.drawn(axes, [row for row in drawn if row["line"] == name], places, style, "drop")
    drops(axes, values, "y")
    axes.set_xlim(-0.35, max(places.values(), default=0) + 0.35)
    if not names:
        axes.text(0.5, 0.5, "no finished run" if not any(row["n"] for row in rows) else "no finished float run",
                  transform=axes.transAxes, ha="center", color=QUIET)  # fmt: skip


def inches(rows: Sequence[Record], size: float) -> float:
    """How high an axis has to be for the names of the lines that `panel` draws, in letters of `size` points."""
    words = _words([row for row in rows if row["line"] in best(rows)[0] and row["drop"] == row["drop"]])
    return sum(map(_lines, words.values())) * size * LINE


def name_ends(axes: Axes, rows: Sequence[Record], size: float) -> None:
    """Write the name of each line that `panel` drew beside its end, right of the narrowest width, none over another:
    the line's marker, joined to the end by a thin line of its colour, and the name. The figure's layout is fixed;
    `size` is that of the letters, points."""
    names, _ = best(rows)
    drawn = [row for row in rows if row["line"] in names and row["drop"] == row["drop"]]
    if not drawn:
        return
    places, named = lines.positions([row for row in rows if row["line"] in names]), _words(drawn)
    last: dict[str, Record] = {}
    for row in sorted(drawn, key=lambda row: places[row["weight_bits"]]):
        last[row["line"]] = row
    order = sorted(
        last.values(), key=lambda row: -shown(row["drop"])
    )  # from the bottom up: the axis is turned
    styles = line_styles((row["method"], row["line"]) for row in drawn)
    words = [named[row["line"]] for row in order]
    box, inch = axes.get_window_extent(), axes.figure.dpi
    heights = [_lines(text) * size * LINE * inch / box.height for text in words]
    letter = size * 0.58 / 72 * inch / box.width
    wide = (max(max(map(len, text.splitlines())) for text in words) + MARKER_LETTERS) * letter
    end = max(places.values())
    right = end + 0.25 + (end + 0.6) * min(wide, 0.6) / (1 - min(wide, 0.6)) + 0.1
    axes.set_xlim(-0.35, right)
    axes.spines["bottom"].set_bounds(-0.35, end + 0.15)
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((0, shown(row["drop"])))[1]) for row in order]
    text_x = float(to_axes.transform((end + 0.25, 1))[0])
    for row, text, y in zip(order, words, spread_out(wanted, heights, 0.0, 1.0), strict=True):
        style, marker_x = styles[row["method"], row["line"]], text_x + letter
        end_x, end_y = to_axes.transform((places[row["weight_bits"]], shown(row["drop"])))
        leader = style | {"linestyle": (0, (1, 2)), "linewidth": 1, "markevery": [1]}
        leader["markersize"] = style["markersize"] * size / 11
        axes.plot([end_x, marker_x], [end_y, y], transform=axes.transAxes, clip_on=False, zorder=2, **leader)
        axes.text(text_x + MARKER_LETTERS * letter, y, text, transform=axes.transAxes, fontsize=size,
                  va="center")  # fmt: skip


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _words(rows: Sequence[Record]) -> dict[str, str]:
    """The name of each line, in lines of LETTERS: where it is the only one of its method in the panel the method's,
    and what is compared between methods."""
    of_method: dict[str, set[str]] = {}
    for row in rows:
        of_method.setdefault(row["method"], set()).add(row["line"])
    short = {
        row["line"]: _of_method(row) if len(of_method[row["method"]]) == 1 else row["line"] for row in rows
    }
    return {line: textwrap.fill(name, LETTERS, break_on_hyphens=False) for line, name in short.items()}


def _of_method(row: Record) -> str:
    ends = ENDS.search(row["line"])
    return ", ".join([row["method"], *([ends[0]] if ends else [])])
