"""What a launcher is, and the table of all launchers.

To add one, write a class with the verbs of `Launcher` anywhere, and give it a line in LAUNCHERS. `launch` and `resume`
use the one that was chosen; `status`, `cancel` and `logs` ask all of them, since a sweep may have stages with several.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, cast

from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.status import Status

LAUNCHERS = {
    "here": "suite.launch.local:Here",
    "torchrun": "suite.launch.local:Torchrun",
    "slurm": "slurm.launcher:Slurm",
}
"""By the word after --on, `module:class`. Of two that could do what is asked, the first is the default."""


@dataclass(frozen=True)
class Submitted:
    """What became of a submission: of how many `stages`, in `words` that follow "N of M stages", and further `lines`
    for people."""

    stages: int
    words: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preview:
    """The jobs that would be submitted, each as (title, the script or command in full), and their sum in a line."""

    jobs: tuple[tuple[str, str], ...]
    total: str


@dataclass(frozen=True)
class Cancelled:
    """How many jobs were asked to save and end, how many stages were taken out of jobs that go on with others, and
    what could not be cancelled, in words."""

    jobs: int = 0
    stages: int = 0
    note: str = ""

    def __add__(self, other: Cancelled) -> Cancelled:
        notes = "; ".join(filter(None, [self.note, other.note]))
        return Cancelled(self.jobs + other.jobs, self.stages + other.stages, notes)


class Launcher(Protocol):
    """Gives stages their ranks. It is made of the folders and of those of its options that were given."""

    name: ClassVar[str]
    """That of its line in LAUNCHERS."""
    takes: ClassVar[tuple[str, ...]]
    """The options of the command line that it has: "workers", "cluster"."""

    @property
    def most_ranks(self) -> int:
        """How many ranks one stage may have."""

    @property
    def on_gpu(self) -> bool:
        """Whether stages run on GPUs."""

    def check(self, stages: Sequence[Stage]) -> None:
        """Raise SuiteError, with the remedy, for what would be refused, could not run, or would run twice."""

    def preview(self, stages: Sequence[Stage]) -> Preview:
        """What `submit` would do now. Raises SuiteError as `check` does."""

    def submit(self, stages: Sequence[Stage]) -> Submitted:
        """Take the stages, which are in plan order, not done, and were checked. Each starts when what it needs is
        done. Raises SuiteError where they are refused.
        """

    def watch(self) -> Generator[None] | None:
        """Do what was submitted, with a yield a few times a second; closing it ends the jobs, which save. None where
        jobs go on by themselves."""

    def status(self, statuses: Sequence[Status]) -> tuple[list[Status], str]:
        """Each status with what the launcher knows beyond the run directory, and a note on what it cannot know."""

    def cancel(self, keys: Sequence[str]) -> Cancelled:
        """Take stages that wait from the queue, and ask jobs that run to save and end. A stage that runs in a job with
        others that are not cancelled is left to end."""

    def logs(self, key: str) -> list[Path]:
        """The files that the last job of a stage wrote, one for each rank or for all; none where it never started."""


def made(name: str | None, folders: Folders, **options: object) -> Launcher:
    """The launcher of that name with these options or, without a name, the first that takes them.

    Raises SuiteError for a name that does not exist and for an option that the launcher does not take.
    """
    if name is not None and name not in LAUNCHERS:
        raise SuiteError(f"--on {name!r} is unknown; use one of {', '.join(LAUNCHERS)}")
    for candidate in LAUNCHERS if name is None else (name,):
        kind, takes = _loaded(candidate)
        if set(options) <= set(takes):
            return kind(folders, **options)
    asked = " and ".join(f"--{option}" for option in options)
    there = {known: ", ".join(f"--{option}" for option in _loaded(known)[1]) for known in LAUNCHERS}
    refused = f"--on {name} does not take {asked}" if name else f"no launcher takes {asked}"
    raise SuiteError(
        f"{refused}; there is {'; '.join(f'{known}: {takes}' for known, takes in there.items())}"
    )


def every(folders: Folders) -> list[Launcher]:
    """All launchers, to ask them for what they have of a runs folder."""
    return [_loaded(name)[0](folders) for name in LAUNCHERS]


def _loaded(name: str) -> tuple[Callable[..., Launcher], tuple[str, ...]]:
    module, _, kind = LAUNCHERS[name].partition(":")
    found = getattr(importlib.import_module(module), kind)
    return cast("Callable[..., Launcher]", found), found.takes
