"""A job array and its record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

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
