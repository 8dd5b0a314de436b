"""The parts a page is made of, and the page as one file: no network, everything that was read is escaped."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.styles import BASELINE, OTHERS, QUIET, RC, STYLES, on_dark
from analysis.waterfall import BETTER, WORSE

HERE = Path(__file__).parent
# Colours of a figure that follow the page, and the variable of the page's style sheet that each becomes.
FOLLOW = {BASELINE: "--ink", "#ffffff": "--paper", RC["grid.color"]: "--rule", QUIET: "--quiet"}
POINT_IN_PIXELS = 4 / 3


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller second line, the marks of its notes, and how it is toned."""

    text: str
    small: str = ""
    marks: Sequence[str] = ()
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """A column's heading, and whether it holds numbers."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; the first cell of a row is its heading, and a row of one cell that of those below.
    `notes` say what marks mean."""

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Mapping[str, str]


@dataclass(frozen=True)
class Picture:
    """A figure as inline SVG, `width` pixels wide by itself; `alt` says what it shows to who cannot see it."""

    kind: ClassVar = "picture"
    svg: Markup
    width: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Fact:
    """A term, its value in large print where it is a headline, and what qualifies it."""

    term: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Facts:
    """Facts side by side, or below each other."""

    kind: ClassVar = "facts"
    facts: Sequence[Fact]
    large: bool = False


@dataclass(frozen=True)
class Lines:
    """Paragraphs, or with `alert` things to know before reading on."""

    kind: ClassVar = "lines"
    lines: Sequence[str]
    alert: bool = False


@dataclass(frozen=True)
class Rows:
    """Many rows that the page itself sorts, filters and shows bit by bit. `data` is what its script reads."""

    kind: ClassVar = "rows"
    caption: str
    columns: Sequence[Column]
    data: Mapping[str, Any]
    methods: Sequence[str]
    states: Sequence[str]


Part: TypeAlias = Table | Picture | Facts | Lines | Rows


@dataclass(frozen=True)
class Section:
    """A heading and the parts below it; `name` is its anchor."""

    name: str
    title: str
    parts: Sequence[Part]


def picture(figure: Figure, name: str, alt: str, caption: str) -> Picture:
    """`figure` as a part of a page on which no other picture has `name`; its colours follow the page's."""
    stream = io.StringIO()
    # Text stays text: small, to be found on the page, and in its font.
    with matplotlib.rc_context(RC | {"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    return Picture(
        svg=Markup(inlined(stream.getvalue(), name)),
        width=round(figure.get_size_inches()[0] * 72 * POINT_IN_PIXELS),
        alt=alt,
        caption=caption,
    )


def inlined(svg: str, name: str) -> str:
    """An SVG file of matplotlib's as an element: without prolog and metadata, ids its own, colours variables."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1
    )
    return re.sub(r'style="[^"]*"', lambda m: re.sub(r"#[0-9a-f]{6}\b", _variable, m[0]), svg)


def _variable(found: re.Match[str]) -> str:
    colour = found[0]
    return f"var({FOLLOW[colour]})" if colour in FOLLOW else f"var(--c{colour[1:]},{colour})"


def _dark_colours() -> dict[str, str]:
    """What each colour of a figure that is too dark for a dark page becomes there, by variable."""
    colours = {*(style.colour for style in STYLES.values()), *OTHERS, BETTER, WORSE} - {BASELINE}
    lighter = {colour.lower(): on_dark(colour) for colour in sorted(colours)}
    return {f"--c{colour[1:]}": light for colour, light in lighter.items() if light != colour}


def embedded(data: Mapping[str, Any]) -> Markup:
    """`data` as JSON inside a script element, which no text in it can end."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def render(title: str, eyebrow: str, sections: Sequence[Section]) -> str:
    """The page. Its policy lets nothing be loaded, and no script run but its own."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["embedded"] = embedded
    script = (HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        title=title,
        eyebrow=eyebrow,
        sections=sections,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
        dark=_dark_colours(),
    )
