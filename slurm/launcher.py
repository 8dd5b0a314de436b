"""The suite on a SLURM cluster: submit a sweep in seconds and go home.

Nothing has to stay alive: jobs wait for those they need, and save and queue themselves again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from slurm import client, end_causes
from slurm.arrays import Array
from slurm.client import JobState
from slurm.cluster import Cluster, check_cluster, largest_array, read_cluster
from slurm.sender import Sender
from suite.launch.ends import record_cancelled
from suite.launch.launcher import Cancelled, Preview, Submitted
from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.files import Folders, write_json
from suite.record.journal import read_events
from suite.record.status import State, Status

NO_ACCOUNTING = "this cluster keeps no accounting, so how its jobs ended is unknown"

USUAL_ARRAY = 1001
"""SLURM's own MaxArraySize, where there is none to ask."""

QUEUE_STATES: dict[str, State] = {"RUNNING": "running", "COMPLETING": "running", "PENDING": "queued"}

NO_FAILURE = (None, "cancelled")
"""The causes of an end that leave a run as it is: it goes on when it is launched again."""


@dataclass
class Slurm:
    """The launcher of a cluster; `cluster` is its cluster.toml, without which a job asks for what the cluster gives by
    default."""

    folders: Folders
    cluster: Path | str | None = None
    name: ClassVar[str] = "slurm"
    takes: ClassVar[tuple[str, ...]] = ("cluster",)

    def __post_init__(self) -> None:
        self.settings = read_cluster(Path(str(self.cluster))) if self.cluster else Cluster()

    @cached_property
    def sender(self) -> Sender:
        """What sends its jobs, and has their records."""
        return Sender(self.folders, self.settings)

    @property
    def most_ranks(self) -> int:
        return 10**6  # `check` knows how many nodes there are

    @property
    def on_gpu(self) -> bool:
        return self.settings.of(trains=True).asked.gpus_per_node > 0

    def check(self, stages: Sequence[Stage]) -> None:
        for trains in {stage.trains_by is not None for stage in stages}:
            nodes = [self.settings.nodes(s.world_size) for s in stages if (s.trains_by is not None) == trains]
            check_cluster(self.settings.of(trains), max(nodes))

    def preview(self, stages: Sequence[Stage]) -> Preview:
        is_here = shutil.which("sinfo") is not None
        if is_here:
            self.check(stages)
        planned = self.sender.planned(stages, largest_array() if is_here else USUAL_ARRAY, is_here)
        shown = []
        for array, text in planned:
            waits = ", ".join(f"{name}_{number}" for name, number in array.after) or "nothing"
            jobs, ranks = counted(len(array.tasks), "job"), counted(array.world_size, "rank")
            title = f"{array.name}: {jobs} of {ranks}, after {waits}"
            shown.append((title, text))
        hours = {"GPU-hours": 0.0, "core-hours": 0.0}
        for array, _ in planned:
            job = self.settings.of(array.trains).asked
            unit, each = ("GPU-hours", 1) if job.gpus_per_node else ("core-hours", job.cpus_per_rank)
            hours[unit] += len(array.tasks) * array.world_size * each * job.minutes / 60
        spent = " and ".join(f"{count:,.0f} {unit}" for unit, count in hours.items() if count) or "0 hours"
        note = "" if is_here else "; not checked: there is no SLURM on this machine"
        return Preview(
            tuple(shown), f"{counted(len(planned), 'array')}; at most {spent} by their time limits{note}"
        )

    def submit(self, stages: Sequence[Stage]) -> Submitted:
        sent = self.sender.send(stages)
        lines = [
            f"  {array.job_id}  {array.name}  {counted(len(array.tasks), 'job')} of "
            f"{counted(array.world_size, 'rank')}"
            for array in sent
        ]
        if self.sender.ending:
            lines.append(
                f"still ending: {counted(self.sender.ending, 'job')}; what they leave, resume sends in a minute"
            )
        count = sum(len(task) for array in sent for task in array.tasks)
        return Submitted(count, f"sent in {counted(len(sent), 'array')}", tuple(lines))

    def watch(self) -> None:
        """Its jobs go on by themselves."""

    def status(self, statuses: Sequence[Status]) -> tuple[list[Status], str]:
        """Each with what SLURM has of it. On another node a lock may not be seen: what SLURM runs is running."""
        if not self.sender.folder.is_dir():
            return list(statuses), ""
        if shutil.which("squeue") is None:
            return list(statuses), "there is no SLURM on this machine, so the state of its jobs is unknown"
        try:
            states, note = self._states()
        except SuiteError as error:
            return list(statuses), f"cannot query SLURM, so the state of its jobs is unknown: {error}"
        return [
            self._with_job(now, *states[now.stage.key]) if now.stage.key in states else now
            for now in statuses
        ], note

    def _states(self) -> tuple[dict[str, tuple[JobState, Array, int]], str]:
        """By key what SLURM last had of each stage, its array and the task; and a note where accounting does not
        answer. Raises SuiteError where the queue does not."""
        arrays, note = self.sender.arrays(), ""
        found = client.queued(array.name for array in arrays)
        try:
            found = client.ended(ids=[array.job_id for array in arrays if array.job_id]) | found
            note = "" if client.keeps_accounting() else NO_ACCOUNTING
        except SuiteError as error:
            note = f"cannot query the accounting, so how jobs ended is unknown: {error}"
        ordered = sorted(arrays, key=lambda array: array.attempt)
        return {
            key: (found[array.task_id(n)], array, n)
            for array in ordered
            for n, task in enumerate(array.tasks)
            for key in task
            if array.task_id(n) in found
        }, note

    def _with_job(self, now: Status, job: JobState, array: Array, number: int) -> Status:
        """The status with its job; of one that was killed before it recorded an error, with the cause of that."""
        attempts = self.sender.task(array, number).attempts
        ended_by = ", ".join(attempt.cause for attempt in attempts if attempt.cause)
        state, failure = now.state, now.failure
        if state in ("pending", "stopped") or (state == "failed" and job.state == "PENDING"):
            state = QUEUE_STATES.get(job.state, state)
        if state in ("pending", "stopped"):
            of_it = [e for e in now.journal[-1:] if not attempts or attempts[-1].has(e, now.stage.key)]
            last = of_it[0] if of_it else {}
            folder = self.sender.folder / array.name
            logs = sorted(folder.glob(f"{job.id}_*.log"))
            cause, words = end_causes.of_job(job, last, logs, self.sender.folder)
            if cause not in NO_FAILURE:
                state, failure = "failed", {"error": words, "cause": cause}
        shown = [job.id, job.state, job.node]
        if job.state == "PENDING" and job.reason not in ("None", "Resources", "Priority"):
            shown.append(f"({job.reason})")
        if ended_by and (job.state in QUEUE_STATES or ", " in ended_by):
            shown.append(f"after {ended_by}")
        return replace(now, state=state, failure=failure, job=" ".join(filter(None, shown)))

    def cancel(self, keys: Sequence[str]) -> Cancelled:
        if not self.sender.folder.is_dir():
            return Cancelled()
        wanted, whole, left_out = set(keys), list[tuple[Array, int]](), 0
        with self.sender.only_one():
            alive = self.sender.alive(self.sender.adopt())
            for array, number in alive:
                task = self.sender.task(array, number)
                listed, skipped = set(array.tasks[number]), task.skipped
                if not listed & wanted - skipped:
                    continue
                if listed <= wanted | skipped:
                    whole.append((array, number))
                else:
                    waiting = {
                        key for key in listed & wanted - skipped if not read_events(self.folders.runs / key)
                    }
                    left_out += len(waiting)
                    write_json(sorted(skipped | waiting), task.skip_list)
                    for key in sorted(waiting):
                        record_cancelled(self.folders.runs / key, array.task_id(number))
            for array, number in [*_that_wait_for(whole, alive), *whole]:
                client.ask("scancel", array.task_id(number))
            for array, number in whole:
                for key in sorted(set(array.tasks[number]) & wanted):
                    record_cancelled(self.folders.runs / key, array.task_id(number))
        return Cancelled(len(whole), left_out)

    def logs(self, key: str) -> list[Path]:
        for array in sorted(self.sender.arrays(), key=lambda array: -array.attempt):
            for number, task in enumerate(array.tasks):
                if key in task:
                    files = (self.sender.folder / array.name).glob(f"{array.task_id(number)}_*.log")
                    if found := sorted(files):
                        return found
        return []


def _that_wait_for(
    cancelled: Sequence[tuple[Array, int]], alive: Sequence[tuple[Array, int]]
) -> list[tuple[Array, int]]:
    """The tasks that can never start once others are cancelled, the last first. SLURM (22.05) takes the dependency on
    a task of an array that is cancelled while it waits for fulfilled, and would start them."""
    found: list[tuple[Array, int]] = []
    lost = {(array.name, number) for array, number in cancelled}
    rest = [(array, number) for array, number in alive if (array.name, number) not in lost]
    while more := [(array, number) for array, number in rest if lost & set(array.after)]:
        found = more + found
        lost |= {(array.name, number) for array, number in more}
        rest = [one for one in rest if one not in more]
    return found
