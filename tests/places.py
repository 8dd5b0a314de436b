"""A real SLURM on this machine, and a user's place on it: a folder with a sweep, and the commands given there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from suite.recipe import Stage
from suite.records import load_sweep, standing

ROOT = Path(__file__).parent.parent
SWEEP = """
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(epochs: int = 1, ranks: int = 1, seeds: int = 1, lr: float = 0.05, batch: int = 200, size: int = 8):
    half = Precision("O2", "bfloat16")
    how = {"world_size": ranks, "sync_batch_norm": ranks < 8, "precision": half}
    sgd = Sgd(epochs=epochs, batch=batch, lr=lr, pad=1, flip=False, **how)
    trainings = [Training(Network("resnet20"), Dataset("digits", size=size), sgd, seed=seed) for seed in range(seeds)]
    return [Recipe(training, Amax(bits, bits)) for training in trainings for bits in (8, 4)]
"""
CLUSTER = """
gpus_per_node = 4
cpus_per_rank = 1
memory_gb_per_rank = 4.0
minutes = 60
"""
COMMAND = ROOT / "slurm" / "local" / "cluster"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "slurmdbd", "munged", "mariadbd")
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}


class Cluster:
    """A cluster of its own in `folder`, driven as a user drives it: by its command and by SLURM's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = OUTSIDE | {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}

    def manage(self, command: str, *arguments: str) -> str:
        """What `slurm/local/cluster` says, on standard output and error, when it succeeds."""
        node, rest = (
            (arguments[:1], arguments[1:]) if command.startswith(("node", "slurmd")) else ((), arguments)
        )
        return manage(command, *node, str(self.folder), *rest)

    def __call__(self, command: str, *arguments: str) -> str:
        """What one of SLURM's commands prints when it succeeds."""
        done = self.attempt(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def attempt(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [*shlex.split(command), *arguments]
        return subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60
        )

    def submit(self, options: str, script: str) -> str:
        """The number of a job that runs `script`, and writes to NUMBER.out, or NUMBER_INDEX.out of an array."""
        output = "%A_%a.out" if "--array" in options else "%j.out"
        return self(f"sbatch --parsable --output={output} {options}", "--wrap", script)

    def output(self, job: str) -> str:
        file = self.folder / f"{job}.out"
        return file.read_text() if file.exists() else ""

    def state(self, job: str) -> str:
        return self(f"squeue --noheader --states=all --jobs={job} --format=%T")

    def recorded(self, job: str, field: str = "State") -> list[str]:
        """What accounting has, of each job of an array, and of each time that a job was started."""
        return self(
            f"sacct --duplicates --allocations --noheader --parsable2 --jobs={job} --format={field}"
        ).split("\n")

    def ends(self, job: str, *states: str) -> None:
        until(lambda: self.recorded(job) == list(states), lambda: f"{self.recorded(job)}, not {states}")

    def idle(self) -> bool:
        return self("sinfo --noheader --partition=main --format=%T") == "idle"


def manage(command: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [COMMAND, command, *arguments], env=OUTSIDE | environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def until(true: Callable[[], bool], instead: Callable[[], str] = str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, instead()
        time.sleep(0.1)


class Place:
    """A folder with a sweep, a cluster.toml and runs, and the commands of a user there."""

    def __init__(self, folder: Path, cluster: Cluster, settings: str = CLUSTER) -> None:
        self.folder, self.runs = folder, folder / "runs"
        (folder / "own.py").write_text(SWEEP)
        (folder / "cluster.toml").write_text(settings)
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        self.environment = OUTSIDE | cluster.environment | {"PYTHONPATH": str(ROOT), "PATH": path}

    def attempt(self, *words: str, program: str | None = None) -> subprocess.CompletedProcess[str]:
        module = ["-c", program] if program else ["-m", "suite"]
        command = [sys.executable, *module, *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=240
        )

    def __call__(self, *words: str) -> str:
        done = self.attempt(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def launch(self, *words: str) -> str:
        return self("launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml", *words)

    def queue(self) -> str:
        """What SLURM's queue has."""
        return subprocess.check_output(["squeue", "--noheader"], env=self.environment, text=True)

    def stages(self) -> tuple[Stage, ...]:
        return load_sweep(self.runs, "own")

    def state(self, stage: Stage) -> str:
        return standing(stage, self.runs).state

    def logs(self) -> str:
        return "\n".join(file.read_text()[-1500:] for file in self.runs.glob("slurm/suite-*/*.log"))

    def all_done(self, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not all(self.state(stage) == "done" for stage in self.stages()):
            assert time.monotonic() < deadline, self("status", "own") + self.logs()
            time.sleep(0.5)
