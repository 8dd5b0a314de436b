"""The commands of the analysis, which stands above the suite and is loaded by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

ANALYSES = {
    "report": "write the table, the figures and report.html of a sweep",
    "verdicts": "judge every published number by all runs of the folder",
    "diff": "show what changed between two sweeps, and whether by chance",
    "export": "write all runs of a sweep as Parquet or CSV",
}
"""What each does, by its name on the command line."""


def analyse(name: str, words: Sequence[str]) -> int:
    """Do a command of the analysis; its exit status."""
    return int(importlib.import_module("analysis.__main__").command(name, list(words)))
