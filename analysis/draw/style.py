"""Colours, markers and files of every figure: a method has the same colour and marker wherever it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from suite.record.method_colours import MARKERS, colour_and_marker

OURS: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    # The paper is the figure's, so that a page can leave it out.
    "axes.facecolor": "none",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    # No ticks are above a panel; to look for them again in every drawing takes a tenth of a report.
    "axes.titley": 1.0,
    "grid.color": "#e0e0e0",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.4,
    "lines.markersize": 6,
    "savefig.dpi": 150,
    # Text stays text: small, to be found, and on a page in its font.
    "svg.fonttype": "none",
    # With a fixed salt and no date in the file, equal figures are equal bytes.
    "svg.hashsalt": "analysis",
    # A name with two dollar signs is a name, not a formula.
    "text.parse_math": False,
}
# The defaults come first: a matplotlibrc or a style of the user's does not reach a figure. Backends are no style.
RC: Any = {
    name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")
} | OURS
WIDE, NARROW = 9.6, 5.5
"""Inches of a figure on the page, and below which its panels stand in one column and its letters are smaller."""
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
BASELINE = "#000000"
DARK_PAPER = "#16181c"
GRAPHICS = 3.0
QUIET = "#666666"


@dataclass(frozen=True)
class Style:
    """Colour and marker of a method, and the size (points) at which the marker appears as large as others."""

    colour: str
    marker: str
    size: float = 6


def style_of(method: str) -> Style:
    """The style of `method`, any name.

    >>> style_of("amax").marker
    '*'
    """
    colour, marker = colour_and_marker(method)
    return Style(colour, marker, 9 if marker == "*" else 6)


def line_styles(
    lines: Iterable[tuple[str, str]], dashes: Sequence[Any] = LINES, taken: Iterable[Any] = ()
) -> dict[tuple[str, str], dict[str, Any]]:
    """For each (method, line) how it is drawn: the colour of its method and, as long as there is one, a pair of dash
    and marker that no other line of the colour has."""
    used = set(taken)
    styles = {}
    for method, line in dict.fromkeys(lines):
        own = style_of(method)
        markers = [own.marker, *(marker for marker in MARKERS if marker != own.marker)]
        free = (one for one in product([own.colour], markers, dashes) if one not in used)
        colour, marker, dash = chosen = next(free, (own.colour, own.marker, dashes[0]))
        used.add(chosen)
        size = 9 if marker == "*" else 6
        styles[method, line] = {"color": colour, "marker": marker, "linestyle": dash, "markersize": size}
    return styles


def rc(width: float) -> Any:
    """The settings of a figure of `width` inches: one of a column of a paper has smaller letters."""
    small = {"font.size": 8, "axes.titlesize": 8.5, "legend.fontsize": 7.5, "lines.markersize": 4.5}
    return RC | small if width < NARROW else RC


def legend_columns(names: Iterable[str], width: float, most: int) -> int:
    """Into how many columns, at most `most`, a legend of these names fits in `width` inches.

    >>> legend_columns(["amax", "mse"], 9.6, 3), legend_columns(["qat_symmetric, moving ranges, epochs 8"], 9.6, 3)
    (3, 2)
    """
    longest = (
        max(map(len, names), default=0) * 0.072 + 0.6
    )  # inches: letters of legend.fontsize, line and gap
    return max(1, min(most, int(width / longest)))


def laid_out(figure: Figure) -> Figure:
    """The figure with its layout computed, once for all files that are made of it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        FigureCanvasAgg(figure)  # its renderer measures texts
        engine.execute(figure)
        figure.set_layout_engine("none")
    return figure


# A file is written by its canvas itself: Figure.savefig draws everything once more beforehand, for nothing here.


def svg(figure: Figure) -> str:
    """The figure as an SVG file; equal figures give equal texts."""
    stream, dpi = StringIO(), figure.dpi
    with matplotlib.rc_context(RC):
        canvas: Any = FigureCanvasSVG(laid_out(figure))
        canvas.print_svg(stream, metadata={"Date": None})
        figure.dpi = dpi
    return stream.getvalue()


def save(
    figure: Figure, stem: Path, kinds: Sequence[str] = ("png", "svg"), drawn: str | None = None
) -> list[Path]:
    """Write `stem`.png, `stem`.svg and what else `kinds` names; equal figures give equal bytes. `drawn` is the
    figure's `svg` where that is known."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
    with matplotlib.rc_context(RC):
        for path in paths:
            if path.suffix == ".svg":
                path.write_text(drawn if drawn is not None else svg(figure), encoding="utf-8")
            elif path.suffix == ".png":
                dpi, figure.dpi = figure.dpi, RC["savefig.dpi"]
                canvas: Any = FigureCanvasAgg(laid_out(figure))
                canvas.print_png(path)
                figure.dpi = dpi
            else:
                laid_out(figure).savefig(path, metadata={"CreationDate": None})
    return paths


def on_dark(colour: str) -> str:
    """`colour` mixed with white until it stands out from the dark page as WCAG asks of graphics, 3 to 1.

    >>> on_dark("#E69F00")
    '#e69f00'
    >>> contrast(on_dark("#332288"), DARK_PAPER) >= GRAPHICS
    True
    """
    for part in range(0, 100, 5):
        mixed = "#" + "".join(f"{round(x + (255 - x) * part / 100):02x}" for x in _channels(colour))
        if contrast(mixed, DARK_PAPER) >= GRAPHICS:
            return mixed
    return "#ffffff"


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours by WCAG 2, from 1 to 21.

    >>> round(contrast("#000000", "#ffffff"), 1)
    21.0
    """
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in _channels(colour))
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _channels(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
