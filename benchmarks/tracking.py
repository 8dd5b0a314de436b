"""How much a training is slowed by recording it: not at all recorded, by our journal, and by plain MLflow calls.

All train the same network on the same images by suite.train.fit, on one thread. Each turn is timed from before the
recording is opened to after it is closed, on the clock and in seconds that this process had a core (its threads
included); imports, the server's start and the first use of a database are not counted. Every round gives each
contender a turn, every second round in reverse, until the time is up; a first round is not counted.

- nothing: the loss and accuracy of each epoch are read, and dropped.
- journal: suite.record.journal.Journal as a run keeps it, with its progress, a small file, its node's load, and on
  the disk at
  each epoch's end, where a run does that with a checkpoint; meanwhile `sync --follow` in a process of its own mirrors
  it into MLflow. That process is stopped while others have their turn.
- MLflow, epochs: MlflowClient.log_metric for each of seven metrics, after each epoch.
- MLflow, steps: that, and a log_metric of the epoch's progress after each step, as sources do with their loss.

MLflow is an SQLite file of its own for each contender, without a server between, which is its quickest; or the server
that MLFLOW_TRACKING_URI names. `lost` and `doubled` are points of our runs, by MLflow's own histories.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from suite import networks
from suite.data import datasets
from suite.ranks import Ranks
from suite.recipe import Dataset, Network, Precision, Sgd, Training
from suite.record import system_metrics
from suite.record.journal import Journal, counted_metrics, read_events
from suite.record.lease import lock
from suite.sweeps.stored import save_sweep
from suite.track import run_contents, store, sync
from suite.train.fit import Step, fit

ROOT = Path(__file__).parent.parent
DATASET = Dataset("digits")
RANKS = Ranks()
MOST = 200
"""Rounds."""
Record = Callable[[Step, dict[str, float]], None]
"""What is called after each step, with the values of the epoch at its end, else none."""


class Turn(NamedTuple):
    """Seconds on the clock, seconds of a core, and seconds on the clock within the calls that record."""

    wall: float
    cpu: float
    within: float


class Clock:
    """Times a turn, from when it is made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def turn(self, within: float) -> Turn:
        """The turn that ends now."""
        return Turn(time.perf_counter() - self.wall, time.process_time() - self.cpu, within)


def training(epochs: int, seed: int) -> Training:
    """The stage of a turn."""
    sgd = Sgd(epochs=epochs, batch=100, lr=0.05, pad=1, flip=False, precision=Precision("O0"))
    return Training(Network("resnet20"), DATASET, sgd, seed=seed)


def train(images: Any, stage: Training, record: Record) -> None:
    """Train, and call `record` after each step."""
    torch.manual_seed(stage.seed)
    for step in fit(networks.build(stage.network), images, stage.sgd, stage.seed, RANKS):
        values = {}
        if step.epoch_ended:
            now = step.read()
            values = {"train_loss": now.loss, "train_top1": now.top1, "skipped_steps": now.skipped_steps}
            values |= {name: now.top1 for name in ("top1", "top5", "loss", "images_per_s")}
        record(step, values)


@contextmanager
def followed(sweep: str, stages: Sequence[Training], runs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process of `sync --follow`, stopped."""
    save_sweep(runs, sweep, {}, stages)
    arguments = ["sync", sweep, "--follow", "--runs", str(runs), "--report", str(runs / "none")]
    following = subprocess.Popen([sys.executable, "-m", "suite", *arguments], cwd=ROOT)
    try:
        while not (runs / "sweeps" / f"{sweep}.mlflow").exists():
            assert following.poll() is None
            time.sleep(0.1)
        following.send_signal(signal.SIGSTOP)
        yield following
        assert following.poll() is None
    finally:
        following.kill()


def ours(images: Any, stage: Training, runs: Path, following: subprocess.Popen[bytes]) -> Turn:
    """A turn of the journal."""
    (runs / stage.key).mkdir(parents=True)
    within = 0.0
    following.send_signal(signal.SIGCONT)
    with lock(runs / stage.key) as lease:
        clock = Clock()
        journal = Journal(runs / stage.key, lease=lease)
        journal.write("started", host=platform.node(), pid=os.getpid(), device="cpu", commit="", job="")
        journal.write("data", split="train", images=len(images), sha256=images.digest)

        def record(step: Step, values: dict[str, float]) -> None:
            nonlocal within
            entered = time.perf_counter()
            if values:
                journal.metrics(step.epoch, **values)
                journal.sync()
            else:
                journal.progress("train", step.images / len(images))
            within += time.perf_counter() - entered

        with system_metrics.sampled(journal, RANKS):
            train(images, stage, record)
        journal.artifact("ranges.csv", b"layer,scale\n" * 100)
        journal.finish(stage.key, top1=0.0, loss=0.0)
        turn = clock.turn(within)
        journal.close()
    following.send_signal(signal.SIGSTOP)
    return turn


def plain(images: Any, stage: Training, client: Any, experiment: str, steps: bool) -> Turn:
    """A turn of MLflow's own calls."""
    clock, within = Clock(), 0.0
    run = client.create_run(experiment).info.run_id

    def record(step: Step, values: dict[str, float]) -> None:
        nonlocal within
        entered = time.perf_counter()
        for name, value in values.items():
            client.log_metric(run, name, value, step=step.epoch)
        if steps and not values:
            client.log_metric(run, "images", step.images, step=step.total)
        within += time.perf_counter() - entered

    train(images, stage, record)
    client.set_terminated(run)
    return clock.turn(within)


def nothing(images: Any, stage: Training) -> Turn:
    """A turn that is not recorded."""
    clock = Clock()
    train(images, stage, lambda step, values: None)
    return clock.turn(0.0)


def lost_and_doubled(client: Any, sweep: str, stages: Sequence[Training], runs: Path) -> tuple[int, int]:
    """Points of journals that MLflow lacks, and points that it has beyond or twice."""
    wanted: Counter[tuple[str, str, float, int, int]] = Counter()
    for stage in stages:
        counted = run_contents.points(counted_metrics(read_events(runs / stage.key))[0], 0)
        wanted.update((stage.key, *point) for point in counted + system_metrics.read(runs / stage.key, {})[0])
    found: Counter[tuple[str, str, float, int, int]] = Counter()
    for run in client.search_runs([client.get_experiment_by_name(sweep).experiment_id]):
        for name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                key = run.data.tags["stage_key"]
                found[key, point.key, point.value, point.timestamp, point.step] += 1
    return (wanted - found).total(), (found - wanted).total()


def measure(seconds: float, epochs: int, folder: Path) -> tuple[dict[str, list[Turn]], int, int]:
    """For each contender the turns of each round; and our points lost and doubled."""
    images = datasets.load(DATASET, "train", folder, RANKS.device)
    mine, theirs = folder / "journal", folder / "mlflow"
    for runs in (mine, theirs):
        store.prepare(runs)
    client, peer = (store.client(store.uri(runs)) for runs in (mine, theirs))
    experiment = peer.create_experiment(f"plain-{time.time_ns()}")
    name = f"benchmark-{time.time_ns()}"
    stages = [training(epochs, seed) for seed in range(MOST)]
    turns: dict[str, list[Turn]] = {}
    with followed(name, stages, mine) as following:
        contenders: dict[str, Callable[[Training], Turn]] = {
            "nothing": lambda stage: nothing(images, stage),
            "journal": lambda stage: ours(images, stage, mine, following),
            "MLflow, epochs": lambda stage: plain(images, stage, peer, experiment, steps=False),
            "MLflow, steps": lambda stage: plain(images, stage, peer, experiment, steps=True),
        }
        began = time.monotonic()
        for number, stage in enumerate(stages):
            for contender in list(contenders)[:: -1 if number % 2 else 1]:
                turn = contenders[contender](stage)
                turns.setdefault(contender, []).append(turn)
            if time.monotonic() - began > seconds and number:
                break
    sync.sync(name, stages, mine)  # what the follower, killed in its work, left for the next
    lost, doubled = lost_and_doubled(client, name, stages[: number + 1], mine)
    return {contender: measured[1:] for contender, measured in turns.items()}, lost, doubled


def between(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the two values that have it between them 19 times of 20."""
    ordered, half = sorted(ratios), len(ratios) / 2
    away = 0.98 * math.sqrt(len(ratios))
    low, high = max(0, math.floor(half - away)), min(len(ratios) - 1, math.ceil(half + away) - 1)
    return statistics.median(ordered), ordered[low], ordered[high]


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="for the rounds; a whole run takes one more"
    )
    parser.add_argument("--epochs", type=int, default=4, help="of a turn, of 12 steps each")
    chosen = parser.parse_args()
    for setting, value in store.SETTINGS.items():
        os.environ.setdefault(setting, value)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        turns, lost, doubled = measure(60 * chosen.minutes, chosen.epochs, Path(folder))
    where = "a server" if os.environ.get("MLFLOW_TRACKING_URI") else "SQLite"
    rounds, bare = len(turns["nothing"]), turns["nothing"]
    print(
        f"{rounds} rounds, turns of {chosen.epochs} epochs of 12 steps, into {where}; {os.cpu_count()} cores"
    )
    print(f"load of the machine at the end {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print(f"{'recorded by':16s}{'seconds':>9s}{'on the clock':>24s}{'of a core':>24s}{'within calls':>14s}")
    slowdown = {}
    for contender, measured in turns.items():
        row = f"{contender:16s}{statistics.median(turn.wall for turn in measured):9.2f}"
        for kind in ("wall", "cpu"):
            ratios = [getattr(a, kind) / getattr(b, kind) for a, b in zip(measured, bare, strict=True)]
            slowdown[contender, kind], low, high = between(ratios)
            row += f"{slowdown[contender, kind]:8.4f} ({low:.3f}, {high:.3f})"
        share = statistics.median(turn.within / (turn.wall - turn.within) for turn in measured)
        print(f"{row}{share:14.3%}")
    print("slowdown: of each round a turn by that of nothing; the median and where it is 19 times of 20")
    figures = {"slowdown": slowdown["journal", "wall"], "slowdown_cpu": slowdown["journal", "cpu"]}
    summary = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"lost": lost, "doubled": doubled, **summary, "rounds": rounds}))


if __name__ == "__main__":
    main()
