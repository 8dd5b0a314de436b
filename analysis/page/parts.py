"""The parts a page is made of: tables, pictures, facts. What was read is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from markupsafe import Markup


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
