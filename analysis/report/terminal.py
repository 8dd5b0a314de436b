"""A table on a terminal: columns that do not fit are left out, the least of them first, and no number is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from suite.record.files import printable

NAME = 24
"""Characters that the first column, a name, is broken at where it must."""
GAP = 2


def table(
    title: str,
    columns: Sequence[tuple[str, bool]],
    rows: Sequence[Sequence[str]],
    colours: Mapping[str, str],
    least: Sequence[int],
    width: int,
) -> Table:
    """`columns` are headings, and whether each holds numbers; `colours` go by how the last cell of a row begins;
    `least` are the indices of those that may be left out on a terminal of `width` characters, in that order."""
    widths = [
        max(len(text) for text in column) for column in zip([h for h, _ in columns], *rows, strict=True)
    ]
    widths[0] = min(widths[0], NAME)
    shown = list(range(len(columns)))
    for index in least:
        if sum(widths[kept] + GAP for kept in shown) - GAP > width:
            shown.remove(index)
    absent = [columns[index][0] for index in range(len(columns)) if index not in shown]
    made = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, caption_justify="left")
    made.caption = f"{', '.join(absent)}: see the files, or widen the terminal" if absent else None
    for index in shown:
        heading, numeric = columns[index]
        made.add_column(
            heading, justify="right" if numeric else "left", no_wrap=index > 0, min_width=widths[index]
        )
    for row in rows:
        # Text, not markup: a label may hold square brackets.
        *cells, last = (Text(printable(row[index])) for index in shown)
        last.stylize(next((colours[word] for word in colours if row[-1].startswith(word)), "dim"))
        made.add_row(*cells, last)
    return made
