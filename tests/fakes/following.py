"""A follower in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from suite.recipe import Stage
from suite.track.follow import follow


class Following:
    """`follow` in a thread, and what it said."""

    def __init__(self, sweep: str, stages: Sequence[Stage], runs: Path) -> None:
        self.said: list[str] = []
        self._lines = follow(sweep, stages, runs, runs / "none", every_seconds=0.2)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        for line in self._lines:
            self.said.append(line)

    def ends(self, seconds: float = 90) -> list[str]:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), self.said
        return self.said
