"""Does a run that is killed go on to the same bits? Shown on the machine at hand, with processes really killed.

For each kind of run one is left alone; then others of the same stage are killed with SIGKILL at random moments and
started again until they are done. Weights, outcome and journal have to be equal, bit for bit.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from suite.launch.environment import worker_environment
from suite.launch.local_process import elastic, kill_tree
from suite.methods.qat_symmetric import QatSymmetric
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Stage, Training
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.journal import counted_metrics, read_events, read_outcome
from suite.run import checkpoint
from suite.stop import uninterrupted
from suite.sweeps.stored import save_sweep

SWEEP = "verify-resume"
MOST_KILLS = 3
"""Of one try."""


@dataclass(frozen=True)
class Verdict:
    """What became of the tries of one stage: how many processes were killed, how many attempts went on from a saved
    state, and what differs from the run nobody killed (nothing, if all is well)."""

    stage: Stage
    tries: int
    kills: int
    resumed: int
    differences: tuple[str, ...]


def stages(ranks: Sequence[int]) -> list[Stage]:
    """A training and a quantization-aware training, by each number of ranks, under O0 and under O2."""
    half: Literal["float16", "bfloat16"] = "float16" if torch.cuda.is_available() else "bfloat16"
    found: list[Stage] = []
    for world_size in ranks:
        for precision in (Precision("O0"), Precision("O2", half)):
            sgd = Sgd(2, 100, 0.05, pad=1, flip=False, precision=precision, world_size=world_size)
            training = Training(Network("resnet20"), Dataset("digits", size=16), sgd)
            found += [training, Recipe(training, QatSymmetric(feed=replace(sgd, epochs=1)))]
    return found


def verify(every: Sequence[Stage], tries: int, seed: int, folder: Path) -> Iterator[Verdict]:
    """Run and kill in `folder`; a Verdict for each stage, of `tries` tries. A stage comes after what it needs.

    Raises SuiteError with the end of its log where a run fails that should not.
    """
    generator = random.Random(seed)
    alone = folder / "alone"
    save_sweep(alone, SWEEP, {}, every)
    for stage in every:
        _finish(stage, alone)
        outcome = read_outcome(alone / stage.key)
        assert outcome is not None
        kills, resumed, differences = 0, 0, list[str]()
        for number in range(tries):
            runs = folder / f"try-{number}"
            save_sweep(runs, SWEEP, {}, every)
            for needed in stage.needs:
                shutil.copytree(alone / needed.key, runs / needed.key, dirs_exist_ok=True)
            moments = [
                generator.uniform(0, outcome["seconds"]) for _ in range(generator.randint(1, MOST_KILLS))
            ]
            kills += sum(_kill(stage, runs, moment) for moment in moments)
            _finish(stage, runs)
            resumed += sum(event["event"] == "resumed" for event in read_events(runs / stage.key))
            differences += [
                f"try {number}: {words}" for words in compare(alone / stage.key, runs / stage.key)
            ]
            shutil.rmtree(runs / stage.key)
        yield Verdict(stage, tries, kills, resumed, tuple(differences))


def _finish(stage: Stage, runs: Path) -> None:
    with _started(stage, runs) as process:
        process.wait()
    if process.returncode:
        log = (runs / stage.key / "job.log").read_text(errors="replace").splitlines()
        raise SuiteError("\n".join([f"{stage.name} failed, and nobody killed it:", *log[-40:]]))


def _kill(stage: Stage, runs: Path, seconds: float) -> bool:
    """Start the stage and kill it so many seconds after it began to work; whether it was still alive."""
    before = len(read_events(runs / stage.key))
    with _started(stage, runs) as process:
        while process.poll() is None and len(read_events(runs / stage.key)) == before:
            time.sleep(0.02)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill_tree(process)
            return True
    return False


@contextmanager
def _started(stage: Stage, runs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that saves its state whenever it checks whether it is time. It ends with this process, at Ctrl-C too."""
    folder = runs / stage.key
    folder.mkdir(parents=True, exist_ok=True)
    words = ["-m", "suite", "run", stage.key, "--runs", str(runs)]
    command = [sys.executable, *elastic(stage.world_size), *words]
    environment = {**worker_environment(), "SUITE_SAVE_SECONDS": "0", "OMP_NUM_THREADS": "1"}
    process = None
    try:
        with uninterrupted(), (folder / "job.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        yield process
    finally:
        if process and process.poll() is None:
            kill_tree(process)


def compare(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs of one stage, but for times, speeds and attempts; nothing if equal."""
    found = []
    outcomes = [_comparable(read_outcome(folder)) for folder in (one, other)]
    if outcomes[0] != outcomes[1]:
        found.append(f"outcomes {outcomes[0]} and {outcomes[1]}")
    journals = [[_comparable(e) for e in counted_metrics(read_events(folder))[0]] for folder in (one, other)]
    if journals[0] != journals[1]:
        found.append(f"journals {journals[0]} and {journals[1]}")
    weights: list[dict[str, torch.Tensor]] = [_weights(folder) for folder in (one, other)]
    unequal = [name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[1][name])]
    if unequal or weights[0].keys() != weights[1].keys():
        found.append(f"{len(unequal)} of {counted(len(weights[0]), 'tensor')}, first {unequal[:1]}")
    return found


def _comparable(record: dict[str, Any] | None) -> Any:
    """What a run has to come to again: not when, how fast or in which attempt."""
    if record is None:
        return None
    kept = {k: v for k, v in record.items() if k not in ("seq", "time", "attempt", "seconds", "checkpoint")}
    kept |= {"values": _comparable(kept["values"])} if "values" in kept else {}
    return {k: v for k, v in kept.items() if not k.endswith("images_per_s")}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    record = read_outcome(folder)
    if record is None:
        raise SuiteError(f"the run in {folder} is not done")
    if "checkpoint" not in record:
        return {}  # of a recipe that does not train
    file = folder / record["checkpoint"]["file"]
    weights: dict[str, torch.Tensor] = checkpoint.load(file, record["checkpoint"]["sha256"])["model"]
    return weights
