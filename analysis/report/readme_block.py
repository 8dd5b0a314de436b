"""A block of a README that is written by a command."""

from __future__ import annotations

from pathlib import Path

from analysis.errors import AnalysisError


def replaced(readme: Path, sweep: str, table: str) -> str:
    """The text of `readme` with `table` as its block for `sweep`; AnalysisError if it has not exactly one."""
    begin, end = f"<!-- table: {sweep} -->", "<!-- /table -->"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed or begin in rest:
        raise AnalysisError(
            f"{readme} has {text.count(begin)} blocks for {sweep!r}; put one {begin} and {end} in it"
        )
    return f"{head}{begin}\n{table}{end}{tail}"
