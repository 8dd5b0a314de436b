"""The status of one stage, asked for once."""

from __future__ import annotations

from pathlib import Path

from suite.recipe import Stage
from suite.record.status import Status, Statuses


def status_of(stage: Stage, runs: Path) -> Status:
    """How far `stage` is in this runs folder."""
    return Statuses(runs).of(stage)
