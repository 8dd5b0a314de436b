"""The jobs that wait, in the order in which they came, and which of them can start."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from suite.launch.grouping import Job


class JobQueue:
    """Jobs by their ids, each with the ids of those that have to succeed before it.

    Each call costs what it changes, not what waits: it is asked several times a second while thousands wait.
    """

    def __init__(self, jobs: Mapping[str, tuple[Job, frozenset[str]]]) -> None:
        """`jobs` are in their order: each comes after those that it needs."""
        self._waiting = {name: job for name, (job, _) in jobs.items()}
        self._number = {name: number for number, name in enumerate(jobs)}
        self._open_needs = {name: set(needs) for name, (_, needs) in jobs.items()}
        self._needed_by: dict[str, list[str]] = {}
        for name, (_, needs) in jobs.items():
            for need in needs:
                self._needed_by.setdefault(need, []).append(name)
        self._ready = [(self._number[name], name) for name, (_, needs) in jobs.items() if not needs]

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def first(self) -> Job | None:
        """Of the jobs that can start, the one that came first; None where there is none."""
        while self._ready and self._ready[0][1] not in self._waiting:
            heapq.heappop(self._ready)
        return self._waiting[self._ready[0][1]] if self._ready else None

    def take(self, name: str) -> None:
        """A job starts."""
        del self._waiting[name]

    def succeeded(self, name: str) -> None:
        """A job has ended well: those that waited for it alone can start."""
        for other in self._needed_by.get(name, ()):
            self._open_needs[other].discard(name)
            if not self._open_needs[other]:
                heapq.heappush(self._ready, (self._number[other], other))

    def give_up(self, names: Iterable[str]) -> list[str]:
        """Jobs have failed, or never start. Those that wait and are among them or need one of them wait no more; their
        ids, in order."""
        lost, asked = set[str](), list(names)
        while asked:
            name = asked.pop()
            if name not in lost:
                lost.add(name)
                asked += self._needed_by.get(name, ())
        gone = sorted(lost & self._waiting.keys(), key=lambda name: self._number[name])
        for name in gone:
            del self._waiting[name]
        return gone

    def within(self, keys: set[str]) -> list[str]:
        """The jobs that wait of which all stages are among `keys`."""
        return [name for name, job in self._waiting.items() if all(stage.key in keys for stage in job)]
