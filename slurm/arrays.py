"""A job array and its record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from suite.recipe.errors import SuiteError
from suite.record.files import read_sealed_json, write_sealed_json

ENDED = "ended-{}.{}"
"""The file beside a record that says that an attempt of a task, by its index and SLURM's restarts, ended as it should,
and holds the status to end with: the script of the job cannot tell that by the status of its commands alone."""


@dataclass(frozen=True)
class Array:
    """Jobs of one shape that wait for the same: `tasks` holds the keys of each job's stages; `after` is (name, index)
    of the tasks that must succeed before. `owner` distinguishes this runs folder from all others. `attempt` counts how
    often the tasks were submitted. `trains` is whether the jobs train. `job_id` is None until SLURM has it. `retries`
    are the further attempts of a job that each cause may cost."""

    tasks: tuple[tuple[str, ...], ...]
    world_size: int
    owner: str
    after: tuple[tuple[str, int], ...] = ()
    attempt: int = 1
    job_id: str | None = None
    retries: dict[str, int] = field(default_factory=dict)
    trains: bool = True

    @property
    def name(self) -> str:
        """The job's name in SLURM, and the record's."""
        content = json.dumps([self.tasks, self.attempt, self.owner]).encode()
        return f"suite-{hashlib.sha256(content).hexdigest()[:16]}"

    def task_id(self, index: int) -> str:
        """SLURM's name of a task; an array of one is a plain job."""
        return f"{self.job_id}_{index}" if len(self.tasks) > 1 else str(self.job_id)

    def write(self, file: Path) -> None:
        """Its record, whole or not at all, with a checksum."""
        write_sealed_json(asdict(self), file)


def read_record(file: Path) -> dict[str, Any]:
    """What the record of an array holds; one of an older version has no checksum. Raises SuiteError where it is
    damaged."""
    try:
        return read_sealed_json(file.read_bytes())
    except (ValueError, RecursionError):
        raise _damaged(file) from None


def read_array(file: Path) -> Array:
    """The array of a record. Raises SuiteError where it is damaged: its name is that of its content."""
    content = read_record(file)
    try:
        tasks = tuple(tuple(task) for task in content.pop("tasks"))
        after = tuple((needed, index) for needed, index in content.pop("after"))
        array = Array(tasks=tasks, after=after, **content)
        is_whole = array.name == file.parent.name
    except (ValueError, TypeError, KeyError, AttributeError):
        is_whole = False
    if not is_whole:
        raise _damaged(file)
    return array


def _damaged(file: Path) -> SuiteError:
    return SuiteError(
        f"{file} is damaged; end its jobs with scancel --name={file.parent.name}, remove {file.parent} and launch "
        f"again"
    )
