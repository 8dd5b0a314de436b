"""The launcher of this machine: each stage a process, or torchrun for several ranks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

import torch

from suite.launch.environment import worker_environment
from suite.launch.grouping import Job
from suite.record.files import Folders


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
        environment = {**worker_environment(), "OMP_NUM_THREADS": threads}
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
