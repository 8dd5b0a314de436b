"""Colours, markers and files of every figure: a method has the same colour and marker wherever it is drawn."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

RC: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": "#e0e0e0",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.4,
    "lines.markersize": 6,
    "savefig.dpi": 150,
    # With a fixed salt and no date in the file, equal figures are equal bytes.
    "svg.hashsalt": "analysis",
    # A name with two dollar signs is a name, not a formula.
    "text.parse_math": False,
}
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


# Okabe and Ito's colours, which the colour-blind can distinguish; the yellow is darkened to show on white.
STYLES = {
    "float": Style(BASELINE, "D"),
    "linear": Style("#D55E00", "o"),
    "int_cast": Style("#7F3C00", "X"),
    "qat_symmetric": Style("#0072B2", "s"),
    "qat_asymmetric": Style("#56B4E9", "D"),
    "builtin_int8": Style("#5B5B5B", "P"),
    "histogram": Style("#009E73", "^"),
    "percentile": Style("#B8A000", "v"),
    "k_sigma": Style("#CC79A7", "h"),
    "amax": Style("#E69F00", "*", 9),
}
# Paul Tol's muted colours, for methods that the map does not name.
OTHERS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#CC6677", "#882255", "#AA4499")
MARKERS = ("<", ">", "p", "8", "d", "H", "o", "s", "^", "v", "P", "X")


def style_of(method: str) -> Style:
    """The style of `method`; one that is not in STYLES gets a style from its name alone, ever the same.

    >>> style_of("amax").marker
    '*'
    >>> style_of("something new") == style_of("something new")
    True
    """
    if method in STYLES:
        return STYLES[method]
    number = zlib.crc32(method.encode())
    return Style(OTHERS[number % len(OTHERS)], MARKERS[number // len(OTHERS) % len(MARKERS)])


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg; equal figures give equal bytes."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    with matplotlib.rc_context(RC):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def on_dark(colour: str, paper: str = DARK_PAPER) -> str:
    """`colour` mixed with white until it stands out from a dark `paper` as WCAG asks of graphics, 3 to 1.

    >>> on_dark("#E69F00")
    '#e69f00'
    >>> contrast(on_dark("#332288"), DARK_PAPER) >= GRAPHICS
    True
    """
    for part in range(0, 100, 5):
        mixed = "#" + "".join(f"{round(x + (255 - x) * part / 100):02x}" for x in _channels(colour))
        if contrast(mixed, paper) >= GRAPHICS:
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
