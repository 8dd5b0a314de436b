"""What a launcher is, and how stages are handed to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from suite.launch.grouping import Job, jobs
from suite.recipe import Stage


class Launcher(Protocol):
    """Takes jobs. One process of the job does its stages one after the other."""

    def submit(self, job: Job, after: Sequence[str]) -> str:
        """Queue a job that starts when those of the ids `after` have succeeded; its id."""


def launch(stages: Sequence[Stage], launcher: Launcher, parts: int) -> None:
    """Submit `stages` (those not done, in plan order) so that each starts after what it needs."""
    id_of: dict[str, str] = {}
    for job in jobs(stages, parts):
        after = {id_of[needed.key] for stage in job for needed in stage.needs if needed.key in id_of}
        job_id = launcher.submit(job, sorted(after))
        id_of |= {stage.key: job_id for stage in job}
