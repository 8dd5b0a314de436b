"""A table of thousands of rows: rich's own takes a millisecond for each, this one a twentieth of that."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.style import Style

from suite.record import files

LEAST = 20
"""Cells of the terminal that a column keeps when it has to be wrapped."""

Cell = tuple[str, str]
"""A text and its style."""


@dataclass
class Rows:
    """A table of `titles` over `rows`. Columns in `right` are aligned to the right; where the terminal is too narrow,
    those in `wrapped` go on in further lines, the last of them first."""

    titles: Sequence[str]
    right: Sequence[str] = ()
    wrapped: Sequence[str] = ()
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows: list[Sequence[Cell]] = [[(title, "bold") for title in self.titles], *self.rows]
        widths, styles = self._widths(rows, options.max_width), dict[str, Style]()
        for row in rows:
            cells = [_lines(text, width) for (text, _), width in zip(row, widths, strict=True)]
            for name in {style for _, style in row} - styles.keys():
                styles[name] = console.get_style(name or "none")
            for number in range(max(map(len, cells))):
                line = [lines[number] if number < len(lines) else "" for lines in cells]
                for text, (_, style) in zip(self._padded(line, widths), row, strict=True):
                    yield Segment(text, styles[style])
                yield Segment.line()

    def fits(self, width: int) -> bool:
        """Whether a terminal of this width shows it without wrapping what names a row; the last column may wrap."""
        *first, last = self._longest()
        return sum(first) + 2 * len(first) + min(last, LEAST) <= width

    def cut_to(self, width: int) -> Rows:
        """The same with each text of the last column cut to what a terminal of this width leaves it in one line."""
        *first, _ = self._longest()
        room = max(LEAST, width - sum(first) - 2 * len(first))
        rows: list[Sequence[Cell]] = []
        for *before, (text, style) in self.rows:
            lines = text.splitlines() or [""]
            short = lines[0] if cell_len(text) <= room else set_cell_size(lines[0], room - 1).rstrip() + "…"
            rows.append([*before, (short, style)])
        return replace(self, rows=rows)

    def _longest(self) -> list[int]:
        """Cells of the longest text of each column."""
        rows: list[Sequence[Cell]] = [[(title, "") for title in self.titles], *self.rows]
        return [max(cell_len(text) for text, _ in column) for column in zip(*rows, strict=True)]

    def _padded(self, line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        for index, (text, width) in enumerate(zip(line, widths, strict=True)):
            blank = " " * (width - cell_len(text))
            if self.titles[index] in self.right:
                text, blank = blank + text, ""
            yield text if index == len(line) - 1 else f"{text}{blank}  "

    def _widths(self, rows: Sequence[Sequence[Cell]], most: int) -> list[int]:
        """Of each column that of its longest line; of those that are wrapped, less where there is no room."""
        lines = [
            {line for text, _ in column for line in text.splitlines()} for column in zip(*rows, strict=True)
        ]
        widths = [max(map(cell_len, column)) for column in lines]
        beyond = sum(widths) + 2 * (len(widths) - 1) - most
        for index in reversed(range(len(widths))):
            if beyond > 0 and self.titles[index] in self.wrapped:
                kept = max(min(widths[index], LEAST), widths[index] - beyond)
                beyond -= widths[index] - kept
                widths[index] = kept
        return widths


def printable(line: str) -> str:
    """The line with a question mark for what is not printable, such as the codes that steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in line)


def literal(text: str) -> str:
    """Text that somebody else may have written, as it is shown where a console takes markup: as itself."""
    return escape(files.printable(text))


def _lines(text: str, width: int) -> Sequence[str]:
    """The lines of a cell. What is not printable, such as the codes that steer a terminal, becomes a question mark."""
    if text.isprintable() and cell_len(text) <= width:
        return (text,)
    lines = [printable(line) for line in text.splitlines()]
    return [part for line in lines for part in textwrap.wrap(line, width)] or ("",)
