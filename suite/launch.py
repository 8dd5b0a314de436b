"""Give each stage its ranks: group stages into jobs, hand the jobs to a launcher. Here: this machine's processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from suite import checkpoint, data, events, intact, models
from suite.jobs import Job, jobs, start_of
from suite.recipe import Calibration, Dataset, Pretrained, Recipe, Stage, Training, plan
from suite.settings import Folders
from suite.train import check_optimizer
from suite.values import SuiteError


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


def check(
    stages: Sequence[Stage],
    folders: Folders,
    most_ranks: int,
    download: bool,
    report: Callable[[int, int], None] | None = None,
    on_gpu: bool | None = None,
) -> None:
    """Everything the stages will need, looked at before any of them runs, of which one gets up to `most_ranks` ranks.

    `on_gpu` tells whether they will run on GPUs; by default as here. `report` gets (files looked at, files in all) of
    a data set of many files. Raises SuiteError with the remedy.
    """
    gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    folders.runs.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        if stage.world_size > most_ranks:
            raise SuiteError(
                f"{stage.name} is shared by {stage.world_size} ranks, and here one run has up to {most_ranks}; use "
                f"--on torchrun on a machine of {stage.world_size} GPUs, --gpus-per-run {most_ranks} to train it with "
                f"fewer, or choose others with --only"
            )
        if stage.trains_by:
            check_optimizer(stage.trains_by)
        half = stage.trains_by.precision if stage.trains_by else None
        if half and half.level != "O0" and half.dtype == "float16" and not gpu:
            raise SuiteError(
                f"{stage.name} trains in float16, which a CPU does some 30 times slower than bfloat16; use "
                f'Precision("O2", "bfloat16"), or a GPU'
            )
    for stage in plan(stages):
        if isinstance(stage, Recipe) and hasattr(stage.method, "check"):
            stage.method.check()
        feed = stage.method.feed if isinstance(stage, Recipe) else None
        if isinstance(feed, Calibration) and feed.images > Dataset.IMAGES[start_of(stage).dataset.name][0]:
            raise SuiteError(
                f"{stage.name} calibrates on {feed.images} images, more than its training split has"
            )
    for start in plan(stages):
        if isinstance(start, Pretrained):
            if not Path(start.file).is_file() or checkpoint.sha256(Path(start.file)) != start.sha256:
                raise SuiteError(f"{start.file} is missing or no longer has sha256 {start.sha256[:16]}")
            models.load_weights(start.network, Path(start.file))
    for dataset in {s.dataset for s in plan(stages) if isinstance(s, (Training, Pretrained))}:
        if download:
            data.download(dataset, folders.data)
        if dataset.name == "imagenet":
            intact.check(folders.data, report)
        for split in ("train", "test"):
            data.load(dataset, split, folders.data, torch.device("cpu"))
    data.load.cache_clear()
    _check_space(folders.runs, stages)


def check_idle(stages: Sequence[Stage], folders: Folders) -> None:
    """Raise SuiteError where a process of this machine runs one of the stages already."""
    for stage in plan(stages):
        if events.locked(folders.runs / stage.key):
            raise SuiteError(
                f"{stage.name} ({stage.key}) is being run by {events.holder(folders.runs / stage.key)}; "
                f"wait for it, or stop it first"
            )


def _check_space(runs: Path, stages: Sequence[Stage]) -> None:
    trained = sum(bool(stage.trains_by) for stage in stages)
    wanted = (
        20e6
        + 0.1e6 * len(stages)
        + 700e6 * trained * any("resnet50" in str(s.params["model"]) for s in stages)
        + 9e6 * trained
    )
    free = shutil.disk_usage(runs).free
    if free < wanted:
        raise SuiteError(
            f"{runs} has {free / 1e6:.0f} MB free, the sweep may need {wanted / 1e6:.0f} MB; free some space or "
            f"choose another folder with --runs"
        )


@dataclass
class Here:
    """Runs jobs as processes of this machine on `places`: its GPUs or, without, shares of its cores.

    A stage takes as many places as it has ranks. One of several ranks is started by torchrun (torch.distributed's
    elastic launch), which ends all of them when one dies.
    """

    folders: Folders
    places: int
    waiting: dict[str, tuple[Job, frozenset[str]]] = field(default_factory=dict)
    running: dict[str, tuple[Job, subprocess.Popen[bytes], list[int]]] = field(default_factory=dict)
    ended: dict[str, bool] = field(default_factory=dict)
    died: dict[str, str] = field(default_factory=dict)
    """Of each job that ended badly, by its id: the last line of its log, and where that lies."""

    def submit(self, job: Job, after: Iterable[str]) -> str:
        """Queue a job; its id is its first stage's key."""
        self.waiting[job[0].key] = (job, frozenset(after))
        return job[0].key

    def work(self) -> Generator[None]:
        """Do all that was submitted; yields a few times a second. When it is closed or interrupted, so are its jobs.

        A job whose needs failed never starts.
        """
        try:
            while self.waiting or self.running:
                self._reap()
                self._start()
                yield
                time.sleep(0.1)
        finally:
            self._stop()

    def _reap(self) -> None:
        for name, (_, process, _) in list(self.running.items()):
            if process.poll() is not None:
                self.ended[name] = process.returncode == 0
                del self.running[name]
                if process.returncode:
                    log = self.folders.runs / name / "job.log"
                    lines = log.read_text(errors="replace").splitlines()
                    last = next((line for line in reversed(lines) if line.strip()), "no output")
                    self.died[name] = f"{last.strip()} (exit {process.returncode}; {log})"

    def _start(self) -> None:
        """Start what is ready, first come first served: a wide job is not passed by narrow ones for ever."""
        for name, (job, after) in list(self.waiting.items()):
            if any(self.ended.get(need) is False for need in after):
                self.ended[name] = False
                del self.waiting[name]
            elif all(need in self.ended for need in after):
                taken = {place for _, _, places in self.running.values() for place in places}
                free = [place for place in range(self.places) if place not in taken]
                wanted = job[0].world_size
                if len(free) < wanted:
                    return
                del self.waiting[name]
                self.running[name] = (job, self._process(job, free[:wanted]), free[:wanted])

    def _process(self, job: Job, places: list[int]) -> subprocess.Popen[bytes]:
        folder = self.folders.runs / job[0].key
        folder.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, (os.cpu_count() or 1) // self.places))
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        if torch.cuda.is_available():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            gpus = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[place % len(gpus)] for place in places)
        command = [
            sys.executable,
            *elastic(len(places)),
            "-m",
            "suite",
            "run",
            *(stage.key for stage in job),
        ]
        command += ["--runs", str(self.folders.runs), "--data", str(self.folders.data)]
        with (folder / "job.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _stop(self) -> None:
        """Ask all jobs to save and end; a training that is asked does so within a few steps."""
        for _, process, _ in self.running.values():
            process.terminate()
        for _, process, _ in self.running.values():
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


def elastic(ranks: int) -> list[str]:
    """The words that start that many ranks on this machine; none for one."""
    if ranks == 1:
        return []
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"  # the last is not handed on unless it is named
    return [*words, "--max-restarts=0", "--shutdown-timeout=45", f"--signals-to-handle={signals}"]


def default_places() -> int:
    """One for each GPU; without GPUs, one for each core, up to 8."""
    return torch.cuda.device_count() or min(8, len(os.sched_getaffinity(0)))
