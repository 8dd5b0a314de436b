"""How much a training is slowed by recording it: not at all recorded, by our journal, and by plain MLflow calls.

All train the same network on the same images by suite.train.fit, on one thread. Each turn is timed on the clock from
before the recording is opened to after it is closed; imports, the server's start and the first look at a database are
not counted. Every round gives each contender a turn, every second round in reverse; a first round is not counted.

- nothing: the loss and accuracy of each epoch are read, and dropped.
- journal: suite.events.Journal as a run keeps it, with its progress, its file on the disk at each epoch's end, where
  a run does that with a checkpoint; meanwhile `sync --follow` in a process of its own mirrors it into MLflow.
- MLflow, epochs: MlflowClient.log_metric for each of seven metrics, after each epoch.
- MLflow, steps: that, and a log_metric of the epoch's progress after each step, as sources do with their loss.

MLflow is an SQLite file of its own for each contender, without a server between, which is its quickest; or the server
that MLFLOW_TRACKING_URI names. `lost` and `doubled` are points of our runs, by MLflow's own histories.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from suite import data, events, models, tracking
from suite.ranks import Ranks
from suite.recipe import Dataset, Network, Precision, Sgd, Training
from suite.records import save_sweep
from suite.train import Step, fit

ROOT = Path(__file__).parent.parent
DATASET = Dataset("digits")
RANKS = Ranks()
Record = Callable[[Step, dict[str, float]], None]
"""What is told after each step, with the values of the epoch at its end, else none."""


def training(epochs: int, seed: int) -> Training:
    """The stage of a turn."""
    sgd = Sgd(epochs=epochs, batch=100, lr=0.05, pad=1, flip=False, precision=Precision("O0"))
    return Training(Network("resnet20"), DATASET, sgd, seed=seed)


def train(images: Any, stage: Training, record: Record) -> None:
    """Train, and tell `record`."""
    torch.manual_seed(stage.seed)
    for step in fit(models.build(stage.network), images, stage.sgd, stage.seed, RANKS):
        values = {}
        if step.epoch_ended:
            now = step.read()
            values = {"train_loss": now.loss, "train_top1": now.top1, "skipped_steps": now.skipped_steps}
            values |= {name: now.top1 for name in ("top1", "top5", "loss", "images_per_s")}
        record(step, values)


@contextmanager
def followed(sweep: str, stage: Training, runs: Path) -> Iterator[None]:
    """While this lasts, `sync --follow` mirrors the stage; and afterwards until MLflow has all."""
    save_sweep(runs, sweep, {}, [stage])
    tracking.prepare(runs)
    words = ["sync", sweep, "--follow", "--runs", str(runs), "--report", str(runs / "none")]
    with subprocess.Popen(
        [sys.executable, "-m", "suite", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as following:
        while not (runs / "sweeps" / f"{sweep}.mlflow").exists():
            time.sleep(0.1)
        yield
        said = following.communicate()[0]
        if following.returncode:
            raise RuntimeError(said)


def ours(images: Any, stage: Training, runs: Path, sweep: str) -> tuple[float, float]:
    """(seconds of the turn, of them seconds within the journal)."""
    (runs / stage.key).mkdir(parents=True)
    spent = 0.0
    with followed(sweep, stage, runs), events.lock(runs / stage.key) as lease:
        began = time.perf_counter()
        journal = events.Journal(runs / stage.key, lease=lease)
        journal.write("started", host=platform.node(), pid=os.getpid(), device="cpu", commit="", job="")
        journal.write("data", split="train", images=len(images), sha256=images.digest)

        def record(step: Step, values: dict[str, float]) -> None:
            nonlocal spent
            entered = time.perf_counter()
            if values:
                journal.metrics(step.epoch, **values)
                journal.sync()
            else:
                journal.progress("train", step.images / len(images))
            spent += time.perf_counter() - entered

        train(images, stage, record)
        journal.finish(stage.key, top1=0.0, loss=0.0)
        took = time.perf_counter() - began
        journal.close()
    return took, spent


def plain(images: Any, stage: Training, client: Any, experiment: str, steps: bool) -> tuple[float, float]:
    """(seconds of the turn, of them seconds within MLflow)."""
    began, spent = time.perf_counter(), 0.0
    run = client.create_run(experiment).info.run_id

    def record(step: Step, values: dict[str, float]) -> None:
        nonlocal spent
        entered = time.perf_counter()
        for name, value in values.items():
            client.log_metric(run, name, value, step=step.epoch)
        if steps and not values:
            client.log_metric(run, "images", step.images, step=step.total)
        spent += time.perf_counter() - entered

    train(images, stage, record)
    client.set_terminated(run)
    return time.perf_counter() - began, spent


def nothing(images: Any, stage: Training) -> tuple[float, float]:
    """(seconds of the turn, zero)."""
    began = time.perf_counter()
    train(images, stage, lambda step, values: None)
    return time.perf_counter() - began, 0.0


def lost_and_doubled(client: Any, sweep: str, stage: Training, runs: Path) -> tuple[int, int]:
    """Points of a journal that MLflow lacks, and points that it has beyond or twice."""
    wanted = Counter(
        (name, event["step"], value, int(event["time"] * 1000))
        for event in events.metrics(events.read(runs / stage.key))[0]
        for name, value in event["values"].items()
    )
    found: Counter[tuple[str, int, float, int]] = Counter()
    experiment = client.get_experiment_by_name(sweep).experiment_id
    for run in client.search_runs([experiment]):
        for name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                found[point.key, point.step, point.value, point.timestamp] += 1
    return (wanted - found).total(), (found - wanted).total()


def measure(rounds: int, epochs: int, place: Path) -> tuple[dict[str, list[tuple[float, float]]], int, int]:
    """For each contender the turns of each round; and our points lost and doubled."""
    images = data.load(DATASET, "train", place, RANKS.device)
    mine, theirs = place / "journal", place / "mlflow"
    for runs in (mine, theirs):
        tracking.prepare(runs)
    client, peer = (tracking._client(tracking.uri(runs)) for runs in (mine, theirs))
    experiment = peer.create_experiment(f"plain-{time.time_ns()}")
    name = f"benchmark-{time.time_ns()}"
    contenders: dict[str, Callable[[Training], tuple[float, float]]] = {
        "nothing": lambda stage: nothing(images, stage),
        "journal": lambda stage: ours(images, stage, mine, f"{name}-{stage.seed}"),
        "MLflow, epochs": lambda stage: plain(images, stage, peer, experiment, steps=False),
        "MLflow, steps": lambda stage: plain(images, stage, peer, experiment, steps=True),
    }
    turns: dict[str, list[tuple[float, float]]] = {contender: [] for contender in contenders}
    lost = doubled = 0
    for number in range(rounds + 1):
        stage = training(epochs, seed=number)
        for contender in list(contenders)[:: -1 if number % 2 else 1]:
            turn = contenders[contender](stage)
            if number:
                turns[contender].append(turn)
        missing, beyond = lost_and_doubled(client, f"{name}-{number}", stage, mine)
        lost, doubled = lost + missing, doubled + beyond
    return turns, lost, doubled


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=4, help="of a turn, of 12 steps each")
    chosen = parser.parse_args()
    for setting, value in tracking.SETTINGS.items():
        os.environ.setdefault(setting, value)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        turns, lost, doubled = measure(chosen.rounds, chosen.epochs, Path(folder))
    where = "a server" if os.environ.get("MLFLOW_TRACKING_URI") else "SQLite"
    print(
        f"{chosen.rounds} rounds, turns of {chosen.epochs} epochs of 12 steps, into {where}; {os.cpu_count()} cores"
    )
    print(f"load of the machine at the end {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print(
        f"{'recorded by':16s}{'seconds':>9s}{'slowdown':>10s}{'least':>8s}{'most':>8s}{'within calls':>14s}"
    )
    slowdown = {}
    for contender, measured in turns.items():
        ratios = [took / bare for (took, _), (bare, _) in zip(measured, turns["nothing"], strict=True)]
        slowdown[contender] = statistics.median(ratios)
        seconds = statistics.median(took for took, _ in measured)
        share = statistics.median(spent / (took - spent) for took, spent in measured)
        row = f"{contender:16s}{seconds:9.2f}{slowdown[contender]:10.4f}{min(ratios):8.3f}{max(ratios):8.3f}"
        print(f"{row}{share:13.3%}")
    print(
        "slowdown: of each round a turn by that of nothing, then the median; calls: by the rest of the turn"
    )
    print(json.dumps({"lost": lost, "doubled": doubled, "slowdown": round(slowdown["journal"], 4)}))


if __name__ == "__main__":
    main()
