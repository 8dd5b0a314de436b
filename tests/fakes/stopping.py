"""A signal that comes at a place that a test chooses."""

from __future__ import annotations

from suite.ranks import Ranks
from suite.recipe import Stage
from suite.record.files import Folders
from suite.run.attempt import InterruptedRunError
from suite.run.stage import run
from suite.stop import Stop


class StopsAfter(Stop):
    """Asks to stop at the check that comes `checks` checks from now."""

    def __init__(self, checks: int) -> None:
        self.checks = checks

    @property
    def asked_by(self) -> str:  # type: ignore[override]
        self.checks -= 1
        return "SIGTERM" if self.checks < 0 else ""


def attempts_of(stage: Stage, folders: Folders, checks: int, most: int = 30) -> int:
    """Run a stage that is stopped after so many checks again and again until it is done; how many attempts it took."""
    for attempt in range(1, most):
        try:
            run(stage, Ranks(), folders, StopsAfter(checks))
        except InterruptedRunError:
            continue
        return attempt
    raise AssertionError(f"{stage.name} is not done after {most} attempts of {checks} checks")
