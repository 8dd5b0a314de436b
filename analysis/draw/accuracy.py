"""Accuracy by bits in small panels: the best methods, and each source as published, re-run and corrected."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.compare.configurations import FLOAT_BITS, by_network
from analysis.compare.roles import are_sound, reruns, source_title
from analysis.draw import best_lines, lines
from analysis.draw.axes import bar
from analysis.draw.lines import Record
from analysis.draw.style import BASELINE, NARROW, QUIET, WIDE, laid_out, line_styles, rc, style_of

RERUN: tuple[Any, ...] = ("--", (0, (5, 1, 1, 1, 1, 1)), (0, (2, 1)))
CORRECTED: tuple[Any, ...] = ("-", (0, (12, 2)), "-.")
"""How the lines of a source are dashed: the first of each for its first line of a method."""
FLOAT_TITLES: dict[float, str] = {FLOAT_BITS: "float"}
TITLE_LETTERS = 27
"""Of a line of the title of a source's panel."""
AROUND = 1.1
"""Inches of a panel above and below its axis: title, ticks and label."""
PARTS = (("weights and activations", False), ("weights alone", True))


def figure(configurations: pd.DataFrame, comparison: pd.DataFrame, width: float = WIDE) -> Figure:
    """For each model and data set the drop of the best methods by weight bits, those that round weights alone in a
    panel of their own, and the top-1 of each source, its published numbers hollow. Bars are 95 % intervals.

    The best panels show methods that do what their name says. `width` in inches; below NARROW panels stand in one
    column.
    """
    settings = rc(width)
    with matplotlib.rc_context(settings):
        networks = _panels(configurations, comparison)
        columns = 1 if width < NARROW else 6
        size = settings["legend.fontsize"]
        heights = [high for _, bests, sources in networks for high in _heights(bests, sources, columns, size)]
        figure = Figure(figsize=(width, sum(heights) + 0.5), layout="constrained")
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        line, best_axes, seen = 0, [], dict[str, Line2D]()
        for title, bests, sources in networks:
            for place, (name, rows) in enumerate(bests):
                axes = figure.add_subplot(_cell(grid, line, place, len(bests), columns, 3))
                words = f"{title}: {name}" if columns > 1 else f"{title}:\n{name}"
                best_lines.panel(axes, rows, words, 42 if columns == 1 else 104 // len(bests))
                best_axes.append((axes, rows))
            line += len(bests) if columns == 1 else min(1, len(bests))
            for place, (source, rows, numbers) in enumerate(sources):
                axes = figure.add_subplot(_cell(grid, line, place, 3, columns, 2))
                seen |= _source_panel(axes, source, rows, numbers, first=columns == 1 or place % 3 == 0)
            line += len(sources) if columns == 1 else -(-len(sources) // 3)
        if seen:
            handles = [*seen.values(), *_roles(_have_published(networks))]
            figure.legend(handles=handles, loc="outside lower center", ncols=2 if columns == 1 else 5)
        laid_out(figure)
        for axes, rows in best_axes:
            best_lines.name_ends(axes, rows, size)
    return figure


def shows_published(configurations: pd.DataFrame, comparison: pd.DataFrame) -> bool:
    """Whether a published number is in the figure: one of the same data set, whose configuration ran."""
    return _have_published(_panels(configurations, comparison))


def _panels(configurations: pd.DataFrame, comparison: pd.DataFrame) -> list[tuple[str, list[Any], list[Any]]]:
    """Of each network the title, the panels of the best methods and those of the sources."""
    table = configurations.assign(line=lines.named(configurations), sound=are_sound(configurations))
    return [(title, _bests(rows), _sources(rows, comparison)) for title, rows in by_network(table)]


def _have_published(networks: Sequence[tuple[str, list[Any], list[Any]]]) -> bool:
    return any(numbers for *_, sources in networks for *_, numbers in sources)


def _cell(grid: Any, line: int, place: int, of: int, columns: int, span: int) -> Any:
    """Where the panel `place` of a row of up to `of` stands: alone in its row, over all columns."""
    if columns == 1:
        return grid[line + place, 0]
    if of == 1:
        return grid[line, :]
    across = columns // span
    start = place % across * span
    return grid[line + place // across, start : start + span]


def _heights(bests: Sequence[Any], sources: Sequence[Any], columns: int, size: float) -> list[float]:
    """Inches of each row of panels of a network, those of the best methods high enough for the names of their lines
    in letters of `size` points."""
    named = [best_lines.inches(rows, size) + AROUND for _, rows in bests]
    if columns == 1:
        return [max(2.6, high) for high in named] + [1.9] * len(sources)
    return [max(3.6, *named)] * bool(bests) + [2.5] * -(-len(sources) // 3)


def _bests(rows: pd.DataFrame) -> list[tuple[str, list[Record]]]:
    """The panels of the best methods: a title, and the sound configurations, or all where none is sound; one without
    any where nothing ran."""
    quantized = rows[(rows["method"] != "float") & (rows["weight_bits"] < FLOAT_BITS)]
    sound = quantized[quantized["sound"].astype(bool)]
    shown, found = sound if sound["n"].any() else quantized, []
    for title, alone in PARTS:
        part = shown[(shown["act_bits"] == FLOAT_BITS) == alone]
        if part["n"].any():
            found.append((title, part.to_dict("records")))
    return found or [("accuracy by bits", quantized.to_dict("records"))]


def _sources(rows: pd.DataFrame, comparison: pd.DataFrame) -> list[tuple[str, list[Record], list[Record]]]:
    """The panels of the sources of which this network re-ran something: the source, the float network's row and those
    re-run and corrected, with their `role`, and the numbers that the source published of this data set."""
    found = []
    floats = rows[rows["method"] == "float"].to_dict("records")[:1]
    for source, configurations in sorted(reruns(comparison).items()):
        mine = rows[rows["n"] > 0]
        rerun = mine[mine["configuration"].isin(configurations)]
        if not len(rerun):
            continue
        again = set(rerun["line"])
        chosen = [
            row | {"role": "corrected" if row["sound"] else "re-run"}
            for row in mine[(mine["source"] == source) & (mine["method"] != "float")].to_dict("records")
            if row["sound"] or row["line"] in again
        ]
        data = rows["dataset"].iloc[0]
        numbers = comparison[
            (comparison["source"] == source)
            & (comparison["metric"] == "top1")
            & (comparison["published_dataset"] == data)
            & comparison["configuration"].notna()
        ]
        found.append((source, floats + chosen, _points(numbers, rows)))
    return found


def _points(numbers: pd.DataFrame, rows: pd.DataFrame) -> list[Record]:
    """Each published number once, with the method and the width of the configurations that re-run it."""
    of = rows.set_index("configuration")[["method", "weight_bits"]].to_dict("index")
    return [
        row | of[row["configuration"]]
        for row in numbers.drop_duplicates("id").to_dict("records")
        if row["configuration"] in of
    ]


def _source_panel(
    axes: Axes, source: str, rows: list[Record], numbers: list[Record], *, first: bool
) -> dict[str, Line2D]:
    """Draw a source; gives the handles of its methods for the legend."""
    quantized = [row for row in rows if row["method"] != "float"]
    floats = [row for row in rows if row["method"] == "float"]
    places = lines.positions([*rows, *numbers])
    styles: dict[tuple[str, str], dict[str, Any]] = {}
    for role, dashes in (("corrected", CORRECTED), ("re-run", RERUN)):
        named = [(row["method"], row["line"]) for row in quantized if row["role"] == role]
        taken = [(s["color"], s["marker"], s["linestyle"]) for s in styles.values()]
        styles |= line_styles(named, dashes, taken)
    for (_, name), style in styles.items():
        lines.drawn(axes, [row for row in quantized if row["line"] == name], places, style, "top1")
    for row in floats:
        axes.axhline(row["top1"], color=BASELINE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.errorbar([places[FLOAT_BITS]], [row["top1"]], yerr=bar(row), color=BASELINE,
                      marker=style_of("float").marker, markersize=5, zorder=3)  # fmt: skip
    for number in numbers:
        own = style_of(number["method"])
        axes.plot(
            [places[number["weight_bits"]]], [number["published"]], linestyle="none", marker=own.marker,
            markersize=own.size + 3, markerfacecolor="none", markeredgecolor=own.colour,
            markeredgewidth=1.3, zorder=4,
        )  # fmt: skip
    axes.set_title(textwrap.fill(source_title(source), TITLE_LETTERS, break_on_hyphens=False))
    networks = {row["published_model"] for row in numbers if isinstance(row["published_model"], str)}
    if networks:
        axes.text(0.02, 0.03, f"published: {', '.join(sorted(networks))}", transform=axes.transAxes, color=QUIET,
                  fontsize=matplotlib.rcParams["legend.fontsize"])  # fmt: skip
    axes.set_ylim(-4, 104)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("top-1 (%)" if first else "")
    lines.ticks(axes, places, FLOAT_TITLES)
    axes.set_xlim(-0.4, len(places) - 0.6)
    return {
        method: Line2D([], [], color=style_of(method).colour, marker=style_of(method).marker, linestyle="none",
                       markersize=style_of(method).size, label=method)
        for method, _ in styles
    }  # fmt: skip


def _roles(published: bool) -> list[Line2D]:
    hollow: dict[str, Any] = {
        "color": QUIET,
        "linestyle": "none",
        "marker": "o",
        "markersize": 9,
        "markerfacecolor": "none",
    }
    return [
        *([Line2D([], [], **hollow, label="published")] if published else []),
        Line2D([], [], color=QUIET, linestyle=RERUN[0], label="re-run as the source ran it"),
        Line2D([], [], color=QUIET, linestyle=CORRECTED[0], label="as the method's name says"),
        Line2D(
            [],
            [],
            color=BASELINE,
            linestyle=(0, (4, 3)),
            marker=style_of("float").marker,
            markersize=5,
            label="float, ours",
        ),
    ]
