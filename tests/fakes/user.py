"""A user at a terminal: a folder with a sweep, and the commands given there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from fakes import ROOT, tiny
from fakes.forking import Forked, completed
from fakes.statuses import status_of
from fakes.waiting import limit, until
from suite.launch import local_jobs
from suite.recipe import Stage
from suite.sweeps.stored import load_sweep

SWEEP = """
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(
    epochs: int = 1, ranks: int = 1, seeds: int = 1, lr: float = 0.05, batch: int = 200, size: int = 8,
    network: str = "resnet20", images: str = "digits",
):
    how = {"world_size": ranks, "sync_batch_norm": ranks < 8, "precision": Precision("O0")}
    sgd = Sgd(epochs=epochs, batch=batch, lr=lr, pad=1, flip=False, **how)
    shown = Dataset(images, size=size)
    trainings = [Training(Network(network), shown, sgd, seed=seed) for seed in range(seeds)]
    return [Recipe(training, Amax(bits, bits)) for training in trainings for bits in (8, 4)]
"""
QUICK = {
    '"resnet20"': '"tiny.py:network"',
    '"digits"': '"tiny.py:images"',
    "batch: int = 200": "batch: int = 12",
}
"""What is put in the place of what in SWEEP, so that a stage takes a moment; an epoch has 6 steps in both."""
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}


class User:
    """A folder with a sweep and runs, and the commands of a user there, who launches `on` one of the launchers."""

    def __init__(self, folder: Path, on: str) -> None:
        self.folder, self.runs, self.on = folder, folder / "runs", on
        self.by: tuple[str, ...] = ("--on", on, "--workers", "2")
        sweep = SWEEP
        for usual, quick in QUICK.items():
            sweep = sweep.replace(usual, quick)
        (folder / "own.py").write_text(sweep)
        pause = f"PAUSE_SECONDS = {limit(tiny.PAUSE_SECONDS)}"
        text = Path(tiny.__file__).read_text().replace(f"PAUSE_SECONDS = {tiny.PAUSE_SECONDS}", pause)
        self.slow = folder / "slow"
        self.slow.touch()
        (folder / "tiny.py").write_text(text.replace('WHILE = ""', f"WHILE = {str(self.slow)!r}"))
        self.environment = OUTSIDE | {"PYTHONPATH": str(ROOT)}
        self.launches: list[Forked] = []

    def attempt(self, *words: str, program: str | None = None) -> subprocess.CompletedProcess[str]:
        return completed(words, self.folder, self.environment, limit(240), program)

    def start(self, *words: str) -> Forked:
        """A command that goes on beside the test."""
        return Forked(words, self.folder, self.environment)

    def __call__(self, *words: str) -> str:
        done = self.attempt(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def launch_and_leave(self, *words: str) -> None:
        """Launch the sweep, and go on while it runs."""
        self.launches.append(self.start("launch", "own.py", *self.by, *words))

    def resume_and_leave(self) -> None:
        """Resume it, and go on while it runs."""
        self.launches.append(self.start("resume", "own"))

    def nothing_runs(self) -> None:
        """Wait until what was launched has ended."""
        for process in self.launches:
            process.communicate(timeout=limit(120))

    def process_of(self, stage: Stage) -> int:
        """The process that records a stage that runs."""
        found = local_jobs.process_of(self.runs / stage.key)
        assert found is not None
        return found

    def stages(self) -> tuple[Stage, ...]:
        return load_sweep(self.runs, "own")

    def training(self) -> tuple[Stage, Path]:
        """The only training, and its run directory."""
        [training] = [stage for stage in self.stages() if stage.trains_by]
        return training, self.runs / training.key

    def state(self, stage: Stage) -> str:
        return status_of(stage, self.runs).state

    def _life(self) -> list[tuple[str, int]]:
        """What changes whenever a job does anything."""
        found = []
        for file in (*self.runs.glob("*/*"), *self.runs.glob("slurm/suite-*/*")):
            try:
                found.append((str(file), file.stat().st_mtime_ns))
            except OSError:
                continue  # it was moved meanwhile
        return sorted(found)

    def _why_not(self) -> str:
        return self("status", "own") if (self.runs / "sweeps" / "own.json").exists() else "not launched"

    def _all_ended(self) -> bool:
        return all(process.poll() is not None for process in self.launches)

    def until(self, true: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until it is `true`, as long as the jobs go on: at most so long without anything that they write."""
        until(true, self._why_not, seconds, self._life)

    def comes_to(self, stage: Stage, state: str = "done") -> None:
        """Wait until a stage has come to `state`; fail at once when it has ended otherwise."""

        def come() -> bool:
            now = self.state(stage)
            return now == state or (now in {"done", "failed"} and self._all_ended())

        self.until(come)
        assert self.state(stage) == state, self._why_not()

    def all_done(self) -> None:
        for stage in self.stages():
            self.comes_to(stage)
