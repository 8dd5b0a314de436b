"""The command that lists the quantization methods."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields

from rich import get_console
from rich.table import Table

from suite.methods import find


def methods() -> int:
    """List the quantization methods, their fields and sources."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("fields and their defaults")
    table.add_column("what it is")
    for name, kind in find().items():
        shown = [
            f"{f.name}={f.default!r}" if f.default is not MISSING else f.name
            for f in fields(kind)
            if f.name != "feed"
        ]
        module = sys.modules[kind.__module__]
        table.add_row(name, ", ".join(shown), (module.__doc__ or "").strip().splitlines()[0])
    get_console().print(table)
    return 0
