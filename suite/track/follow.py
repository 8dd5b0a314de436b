"""Syncs MLflow in the background while a sweep runs; a server that is down costs the runs nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.record.status import Status
from suite.record.waiting import announced
from suite.track import store
from suite.track.sync import Syncer

EVERY_SECONDS = 5.0
"""Between two syncs."""

PATIENCE_SECONDS = 20.0
"""How long a launch that has ended waits for MLflow."""


class Follower(threading.Thread):
    """Syncs every few seconds while a launcher works; whatever goes wrong with MLflow is reported at the end."""

    def __init__(
        self, sweep: str, stages: Sequence[Stage], runs: Path, every_seconds: float = EVERY_SECONDS
    ) -> None:
        super().__init__(daemon=True)
        self.stages, self.runs, self.every_seconds = stages, runs, every_seconds
        self._done = threading.Event()
        self._syncer = Syncer(sweep, stages, runs)
        self.error: Exception | None = None
        self.refused: dict[str, str] = {}

    def run(self) -> None:
        """Sync until `finish` is called, and once more."""
        while not self._done.wait(self.every_seconds):
            self._once()
        self._syncer.ask_again()  # a client that repeated a request may have made a run twice
        self._once()

    def finish(self, within_seconds: float = PATIENCE_SECONDS) -> None:
        """Return after a last sync, or after `within_seconds`: a launch does not wait for a server that is down."""
        self._done.set()
        with announced(
            f"MLflow at {store.shown(self.runs)} is not up to date yet; it has {within_seconds:.0f} s"
        ):
            self.join(within_seconds)
        if self.is_alive() and self.error is None:
            address = store.shown(self.runs)
            self.error = SuiteError(f"{address} was not up to date after {within_seconds:.0f} s")

    def _once(self) -> None:
        refused: dict[str, str] = {}
        try:
            statuses = self._syncer.seen.of_all(self.stages)
            if self._syncer.is_settled(statuses) and not self.refused:
                return
            self._syncer.sync(refused=refused)
        except Exception as error:
            self.error = error
        else:
            self.error, self.refused = None, refused


def follow(
    sweep: str, stages: Sequence[Stage], runs: Path, report: Path, every_seconds: float = EVERY_SECONDS
) -> Iterator[str]:
    """Sync every few seconds until all stages are final and MLflow has them. Gives a line when MLflow went away,
    one when it is back, and one for each kind of thing that it refused; for those it waits no longer than for one
    more try.

    Raises SuiteError for what no waiting mends: an experiment that is deleted, or another runs folder's.
    """
    away_since: float | None = None
    known: set[str] = set()
    syncer = Syncer(sweep, stages, runs)
    while True:
        ended = _are_final(syncer.seen.of_all(stages))  # asked before the sync, so that this one is the last
        if ended:
            syncer.ask_again()
        was_away, refused = away_since is not None, dict[str, str]()
        try:
            syncer.sync(report, refused)
        except (store.AwayError, OSError) as error:
            if away_since is None:
                away_since = time.monotonic()
                yield f"MLflow is behind: {error}; trying again every {every_seconds:.0f} s"
        else:
            if away_since is not None:
                yield f"MLflow is back after {time.monotonic() - away_since:.0f} s, and up to date"
                away_since = None
            new = [line for kind, line in refused.items() if kind not in known]
            known |= refused.keys()
            yield from new
            # What a server that hung was asked for, it may do late: whether that changed anything is checked again.
            if ended and not was_away and not new:
                return
        time.sleep(every_seconds)


def _are_final(statuses: Sequence[Status]) -> bool:
    """Whether nothing more is to come: each stage is done, failed or cancelled, or starts from one that is lost."""
    lost: set[str] = set()
    for now in statuses:
        cancelled = now.state == "stopped" and now.last["event"] == "cancelled"
        orphan = now.state == "pending" and any(needed.key in lost for needed in now.stage.needs)
        if now.state == "failed" or cancelled or orphan:
            lost.add(now.stage.key)
        elif now.state != "done":
            return False
    return True
