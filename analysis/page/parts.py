"""The parts a page is made of: tables, pictures, facts. The template escapes every text in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

from matplotlib.figure import Figure

from analysis.draw import style


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
    `notes` explain the marks. On a phone the rows of `cards` stand below each other, each with its own headings.
    `folded`: behind its caption, until somebody opens it; of numbers that a figure or a shorter table shows."""

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Mapping[str, str]
    cards: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure inside the page, and beside it as NAME.svg; `alt` describes it to those who cannot
    see it. `narrow` stands in its place on a phone, and `filed` in the files."""

    kind: ClassVar = "picture"
    name: str
    figure: Figure
    alt: str
    caption: str
    narrow: Figure | None = None
    filed: Figure | None = None

    @property
    def width(self) -> int:
        """CSS pixels, of which an inch has 96."""
        return round(96 * float(self.figure.get_size_inches()[0]))

    @cached_property
    def svg(self) -> str:
        """The figure as an SVG file, drawn once for the page and its file."""
        return style.svg(self.figure)

    @property
    def narrow_svg(self) -> str:
        """The same of the figure for a phone."""
        assert self.narrow is not None
        return style.svg(self.narrow)


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
    """Paragraphs, or with `alert` things to know before reading on. With a `fold`, its text opens them."""

    kind: ClassVar = "lines"
    lines: Sequence[str]
    alert: bool = False
    fold: str = ""


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
    """A heading and the parts below it; `name` is its anchor. `files` are the texts of files beside the page."""

    name: str
    title: str
    parts: Sequence[Part]
    files: Mapping[str, str] = field(default_factory=dict)


def notes_of(rows: Sequence[Sequence[Cell]], words: Mapping[str, str]) -> dict[str, str]:
    """Those of `words` whose mark a cell of `rows` carries."""
    return {mark: words[mark] for row in rows for cell in row for mark in cell.marks}
