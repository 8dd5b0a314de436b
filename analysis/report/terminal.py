"""A table on a terminal: columns that do not fit are left out, the least of them first, and no number is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

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
    `least` are the places of those that may be left out on a terminal of `width` characters, in that order."""
    widths = [
        max(len(text) for text in column) for column in zip([h for h, _ in columns], *rows, strict=True)
    ]
    widths[0] = min(widths[0], NAME)
    shown = list(range(len(columns)))
    for place in least:
        if sum(widths[kept] + GAP for kept in shown) - GAP > width:
            shown.remove(place)
    absent = [columns[place][0] for place in range(len(columns)) if place not in shown]
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, caption_justify="left")
    made.caption = f"{', '.join(absent)}: see the files, or widen the terminal" if absent else None
    for place in shown:
        heading, numeric = columns[place]
        made.add_column(
            heading, justify="right" if numeric else "left", no_wrap=place > 0, min_width=widths[place]
        )
    for row in rows:
        # Text, not markup: a label may hold square brackets.
        *cells, last = (Text(row[place]) for place in shown)
        last.stylize(next((colours[word] for word in colours if row[-1].startswith(word)), "dim"))
        made.add_row(*cells, last)
    return made
