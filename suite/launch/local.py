"""The launchers of this machine: each job a process, or torchrun for several ranks."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from suite.launch import ends, local_jobs
from suite.launch.environment import gpu_names, only_gpus, worker_environment
from suite.launch.grouping import Job, jobs
from suite.launch.job_queue import JobQueue
from suite.launch.launcher import Cancelled, Preview, Submitted
from suite.launch.local_process import Running, elastic, last_event, unfinished, wait_or_kill
from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record import lease
from suite.record.files import Folders, open_to_append
from suite.record.status import Status
from suite.stop import uninterrupted

SHORT_TRAINING = 10_000
"""Passes of images: two epochs of the digits."""


@dataclass
class Here:
    """Runs jobs as processes of this machine in `slots`: its GPUs or, without, shares of its cores.

    A stage takes as many slots as it has ranks. `workers` is the number of slots, if not all.
    """

    folders: Folders
    workers: int | None = None
    takes: ClassVar[tuple[str, ...]] = ("workers",)
    name: ClassVar[str] = "here"
    adopts: ClassVar[bool] = True
    """Whether it answers for processes of this machine that no living launcher has: those of one that was killed, and
    those that a user started with `run`."""

    def __post_init__(self) -> None:
        if self.workers is not None and not (isinstance(self.workers, int) and self.workers >= 1):
            raise SuiteError(f"--workers {self.workers} is too few, or no number; use 1 or more")
        self._launch: local_jobs.Launch | None = None
        self._waiting = JobQueue({})
        self._running: dict[str, Running] = {}

    @cached_property
    def slots(self) -> int:
        """By default one for each GPU; without GPUs, one for each core, up to 8."""
        import torch

        return self.workers or torch.cuda.device_count() or min(8, len(os.sched_getaffinity(0)))

    @property
    def most_ranks(self) -> int:
        return 1

    @property
    def on_gpu(self) -> bool:
        import torch

        return torch.cuda.is_available()

    def check(self, stages: Sequence[Stage]) -> None:
        from suite.launch.preflight import check_idle

        check_idle(stages, self.folders)
        for launch in filter(lambda launch: launch.alive, local_jobs.launches(self.folders.runs)):
            held = {key for job in launch.open_jobs for key in job}
            for stage in stages:
                if stage.key in held:
                    raise SuiteError(
                        f"{stage.name} ({stage.key}) waits for {launch.process}, which has launched it; "
                        f"wait for it, or cancel it first"
                    )

    def preview(self, stages: Sequence[Stage]) -> Preview:
        self.check(stages)
        listed = self._queue(stages)
        shown = []
        for job, after in listed.values():
            ranks, needs = job[0].world_size, " and ".join(sorted(after)) or "nothing"
            title = f"{', '.join(stage.name for stage in job)}: {counted(ranks, 'rank')}, after {needs}"
            shown.append((title, shlex.join(self._command(job))))
        return Preview(
            tuple(shown),
            f"{counted(len(shown), 'process')}, of {counted(self._side_by_side(stages), 'rank')} at a time",
        )

    def submit(self, stages: Sequence[Stage]) -> Submitted:
        listed = self._queue(stages)
        self.slots = self._side_by_side(stages)
        self._waiting = JobQueue(listed)
        if listed:
            content = [[stage.key for stage in job] for job, _ in listed.values()]
            self._launch = local_jobs.record(self.folders.runs, self.name, content)
        return Submitted(len(stages), f"to run, {counted(self.slots, 'process')} at a time")

    def _side_by_side(self, stages: Sequence[Stage]) -> int:
        """How many slots these stages can fill."""
        return min(self.slots, max(1, sum(stage.world_size for stage in stages)))

    def _queue(self, stages: Sequence[Stage]) -> dict[str, tuple[Job, frozenset[str]]]:
        """Each job by its id, its first stage's key, with the ids of those that have to succeed before it."""
        job_of: dict[str, str] = {}
        queue = {}
        for job in jobs(stages, self._side_by_side(stages), SHORT_TRAINING):
            needs = {job_of[needed.key] for stage in job for needed in stage.needs if needed.key in job_of}
            queue[job[0].key] = job, frozenset(needs)
            job_of |= {stage.key: job[0].key for stage in job}
        return queue

    def watch(self) -> Generator[None]:
        """Do all that was submitted. When it is closed or interrupted, so are its jobs.

        A job whose needs failed never starts.
        """
        if self._launch is None:
            return
        skipped = set[str]()
        with lease.lock(self._launch.folder):
            try:
                while self._waiting or self._running:
                    before, skipped = skipped, self._launch.skipped
                    if skipped != before:
                        self._give_up(self._waiting.within(skipped))
                    self._reap(skipped)
                    self._start()
                    yield
                    time.sleep(0.1)
            finally:
                self._stop()

    def _reap(self, skipped: set[str]) -> None:
        assert self._launch is not None
        for name, running in list(self._running.items()):
            status = running.process.poll()
            if status is not None:
                del self._running[name]
                running.record_end(self.folders.runs, status)
                self._launch.note_ended(name)
                if status == 0 and not skipped & running.keys:
                    self._waiting.succeeded(name)
                else:
                    self._give_up([name])
            elif skipped & running.keys and unfinished(self.folders.runs, running.keys) <= skipped:
                running.ask_to_end()

    def _give_up(self, names: list[str]) -> None:
        """Jobs have failed or were cancelled: those that need them never start."""
        assert self._launch is not None
        for name in self._waiting.give_up(names):
            self._launch.note_ended(name)

    def _start(self) -> None:
        """Start what is ready, first come first served: a wide job is not passed by narrow ones for ever."""
        while job := self._waiting.first():
            taken = {slot for running in self._running.values() for slot in running.slots}
            free = [slot for slot in range(self.slots) if slot not in taken]
            wanted = job[0].world_size
            if len(free) < wanted:
                return
            self._waiting.take(job[0].key)
            with uninterrupted():
                self._running[job[0].key] = self._process(job, free[:wanted])

    def _process(self, job: Job, slots: list[int]) -> Running:
        import torch

        assert self._launch is not None
        folder = self.folders.runs / job[0].key
        folder.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.slots))
        environment = {**worker_environment(), "OMP_NUM_THREADS": threads}
        environment["SUITE_SKIPPED"] = str(self._launch.skip_list.resolve())
        if torch.cuda.is_available():
            gpus = gpu_names(torch.cuda.device_count())
            environment |= only_gpus([gpus[slot % len(gpus)] for slot in slots])
            environment["TORCHINDUCTOR_COMPILE_THREADS"] = threads
        last_events = {stage.key: last_event(self.folders.runs / stage.key) for stage in job}
        with open_to_append(folder / "job.log") as log:
            began_at = log.tell()
            process = subprocess.Popen(
                self._command(job),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        return Running(job, process, slots, folder / "job.log", began_at, last_events)

    def _command(self, job: Job) -> list[str]:
        words = ["-m", "suite", "run", *(stage.key for stage in job)]
        words += ["--runs", str(self.folders.runs), "--data", str(self.folders.data)]
        return [sys.executable, *elastic(job[0].world_size), *words]

    def _stop(self) -> None:
        """Ask all jobs to save and end; a training that is asked does so within a few steps."""
        for running in self._running.values():
            running.ask_to_end()
        for running in self._running.values():
            wait_or_kill(running.process)
        self._running.clear()

    def status(self, statuses: Sequence[Status]) -> tuple[list[Status], str]:
        held = {key: launch for launch in self._alive() for job in launch.open_jobs for key in job}
        return [self._with_job(now, held.get(now.stage.key)) for now in statuses], ""

    def _with_job(self, now: Status, launch: local_jobs.Launch | None) -> Status:
        if now.state == "running" and self.adopts:
            process = local_jobs.process_of(self.folders.runs / now.stage.key)
            return replace(now, job=f"process {process}") if process else now
        if launch and (
            now.state in ("pending", "stopped") or now.failure.get("time", launch.began) < launch.began
        ):
            return replace(now, state="queued", failure={}, job=f"waits for {launch.process}")
        return now

    def _alive(self) -> list[local_jobs.Launch]:
        """Its launches that go on, whoever began them."""
        found = local_jobs.launches(self.folders.runs)
        return [launch for launch in found if launch.alive and launch.on == self.name]

    def cancel(self, keys: Sequence[str]) -> Cancelled:
        done = Cancelled()
        for launch in self._alive():
            done += self._cancel_in(launch, set(keys))
        return done + self._cancel_unlaunched(keys) if self.adopts else done

    def _cancel_in(self, launch: local_jobs.Launch, wanted: set[str]) -> Cancelled:
        """Put stages on the list that the launch and its jobs read."""
        whole, ended, left_out = set[str](), 0, set[str]()
        for job in launch.open_jobs:
            opened = unfinished(self.folders.runs, set(job))
            if not opened & wanted:
                continue
            if opened <= wanted:
                whole |= opened
                ended += 1
            else:
                left_out |= {key for key in opened & wanted if not lease.locked(self.folders.runs / key)}
        if whole | left_out:
            launch.skip(whole | left_out)
        for key in sorted(whole | left_out):
            ends.record_cancelled(self.folders.runs / key, launch.process)
        return Cancelled(ended, len(left_out))

    def _cancel_unlaunched(self, keys: Sequence[str]) -> Cancelled:
        """Ask processes of this machine to end that no living launcher has."""
        launches = [launch for launch in local_jobs.launches(self.folders.runs) if launch.alive]
        held = {key for launch in launches for job in launch.jobs for key in job}
        found = {local_jobs.process_of(self.folders.runs / key) for key in keys if key not in held}
        for process in found - {None}:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(process or 0), signal.SIGTERM)
        return Cancelled(len(found - {None}))

    def logs(self, key: str) -> list[Path]:
        found = [
            job[0] for launch in local_jobs.launches(self.folders.runs) for job in launch.jobs if key in job
        ]
        files = [self.folders.runs / name / "job.log" for name in [*found, key]]
        return [file for file in files if file.is_file()][:1]


class Torchrun(Here):
    """As Here, and a stage may have as many ranks as there are slots.

    One of several ranks is started by torchrun (torch.distributed's elastic launch), which ends all of them when one
    dies.
    """

    name: ClassVar[str] = "torchrun"
    adopts: ClassVar[bool] = False

    @property
    def most_ranks(self) -> int:
        return self.slots
