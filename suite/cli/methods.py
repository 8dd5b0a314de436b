"""The command that lists the quantization methods."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from rich import get_console
from rich.table import Table

from suite.methods import find


def methods() -> int:
    """List the quantization methods, their settings and sources."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("settings and their defaults")
    table.add_column("what it is")
    for name, kind in find().items():
        shown = [_setting(f) for f in fields(kind)]
        module = sys.modules[kind.__module__]
        table.add_row(name, ", ".join(shown), (module.__doc__ or "").strip().splitlines()[0])
    get_console().print(table)
    for number in sorted(published_sources()):
        print_source(number)
    return 0


def _setting(field: Field[Any]) -> str:
    """`momentum=0.9`, `feed=Sgd(epochs=1, batch=128, lr=0.01)`, or the name alone where the user has to give it."""
    if field.default_factory is MISSING:
        return field.name if field.default is MISSING else f"{field.name}={field.default!r}"
    default = field.default_factory()
    given = [
        f"{f.name}={getattr(default, f.name)!r}"
        for f in fields(default)
        if f.default_factory is MISSING and getattr(default, f.name) != f.default
    ]
    return f"{field.name}={type(default).__name__}({', '.join(given)})"


def published_sources() -> Mapping[str, str]:
    """What each source is, by its number."""
    from analysis.read import published  # the one place that names them

    return published.load().sources


def listed_sources() -> str:
    """The number and the title of each source: `000 Quantization, 001 Quantization on Pytorch, ...`."""
    return ", ".join(f"{number} {about.partition(':')[0]}" for number, about in published_sources().items())


def print_source(number: str) -> None:
    """Say what a source is: `source 002, Handwritten-Quantization: a README by ...`."""
    line = f"source {number}, {published_sources()[number]}"
    get_console().print(line, markup=False, highlight=False, soft_wrap=True)
