"""What it costs to know how far a sweep of thousands of finished stages is, once and while a launch waits.

The stages are as real ones leave them: each training of EPOCHS epochs and the recipes that start from it, with
journal, outcome, lock and progress. Measured are:
- status: the whole command `python -m suite status`, from the start of Python to the prompt, seconds on the clock and
  of a core;
- a check: what `status --watch` does every 5 s and the live view of a launch every 0.4 s, the first and a further one,
  seconds of a core. The peer, in the same process: to read and parse all journals and outcomes at each check;
- a launch that waits: the live view over all stages and one more, whose process appends an event every second, for
  some seconds; the share of a core that it takes, its checks included. MLflow is not synced meanwhile.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.analysis import spreads
from suite.cli.live import CHECK_SECONDS, STATUS_SECONDS, Watch
from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Stage, Training, plan
from suite.record.journal import Journal, examine_events, read_outcome
from suite.record.jsonl import sealed
from suite.record.lease import lock
from suite.record.status import Statuses
from suite.record.synced import Known, note_synced, tracked
from suite.sweeps.stored import save_sweep

ROOT = Path(__file__).parent.parent
EPOCHS = 200
WIDTHS = range(2, 14)


def stages(count: int) -> tuple[Stage, ...]:
    """`count` stages: trainings, and 24 recipes of each."""
    sgd = Sgd(epochs=EPOCHS, batch=128, lr=0.1, precision=Precision("O0"))
    each = [method for bits in WIDTHS for method in (Amax(bits, bits), KSigma(bits))]
    trainings = [
        Training(Network("resnet20"), Dataset("digits"), sgd, seed=seed)
        for seed in range(-(-count // (1 + len(each))))
    ]
    return plan([Recipe(training, method) for training in trainings for method in each])[:count]


def write_finished(runs: Path, stage: Stage) -> None:
    """What a run of `stage` leaves."""
    folder = runs / stage.key
    folder.mkdir(parents=True)
    train = {"train_loss": 1.2345, "train_top1": 50.125, "train_images_per_s": 900.5}
    test = {"top1": 50.5, "top5": 90.25, "loss": 1.0625, "images_per_s": 900.5, "model_size_mb": 1.084392}
    lines: list[dict[str, object]] = [
        {"event": "started", "host": "node", "pid": 1, "device": "cpu", "commit": "0" * 40},
        {"event": "data", "split": "test", "images": 10000, "sha256": "1" * 64},
    ]
    for epoch in range(1, (EPOCHS if stage.trains_by else 1) + 1):
        lines += [{"event": "metrics", "step": epoch, "values": values} for values in (train, test)]
    lines.append({"event": "finished"})
    sequence = ({"seq": seq, "time": 1.7e9 + seq, "attempt": 1} | line for seq, line in enumerate(lines, 1))
    (folder / "events.jsonl").write_text("".join(map(sealed, sequence)))
    outcome = {"format": 1, "key": stage.key, "attempt": 1, **test, "seconds": 9.5, "correct": "A" * 1668}
    (folder / "outcome.json").write_text(json.dumps(outcome, indent=1))
    (folder / "progress.json").write_text('{"doing": "evaluates", "part": 1.0}')
    (folder / "lock").touch()


def core_seconds(work: Callable[[], object]) -> float:
    """The seconds of a core that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def command(folder: Path, *words: str) -> tuple[float, float]:
    """(seconds on the clock, seconds of a core) of one `python -m suite ...` in `folder`, without a server of
    MLflow's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    before, began = os.times(), time.perf_counter()
    arguments = [sys.executable, "-m", "suite", *words]
    subprocess.run(arguments, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    took, after = time.perf_counter() - began, os.times()
    return took, sum(after[2:4]) - sum(before[2:4])


def whole_journals(runs: Path, listed: Sequence[Stage]) -> None:
    """The peer's check: every journal and outcome is read and parsed."""
    for stage in listed:
        examine_events(runs / stage.key)
        read_outcome(runs / stage.key)


def launch_share(runs: Path, listed: Sequence[Stage], running: Stage, seconds: float) -> float:
    """The share of a core that the live view takes while `running` goes on and all others are done."""
    folder = runs / running.key
    with lock(folder):
        journal = Journal(folder)
        journal.write("started")

        def ticks() -> Iterator[None]:
            for number in range(round(10 * seconds)):
                time.sleep(0.1)
                if number % 10 == 0:
                    journal.metrics(1 + number // 10, train_loss=1.0, top1=50.0)
                yield

        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        watch = Watch(console, [*listed, running], runs)
        began = time.perf_counter()
        share = core_seconds(lambda: watch.follow(ticks())) / (time.perf_counter() - began)
        journal.close()
    return share


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="how long the launch waits")
    chosen = parser.parse_args()
    *listed, running = stages(chosen.stages + 1)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        save_sweep(runs, "big", {}, listed)
        for stage in listed:
            write_finished(runs, stage)
        note_synced(runs, "big", {stage.key: 10**6 for stage in listed}, {})
        for _ in range(chosen.rounds):
            clock, core = command(runs, "status", "big", "--runs", str(runs))
            statuses, known = Statuses(runs), Known()
            measured = {
                "status, on the clock": clock,
                "status, of a core": core,
                "first check": core_seconds(lambda: statuses.of_all(listed)),  # noqa: B023
                "further check": core_seconds(lambda: statuses.of_all(listed)),  # noqa: B023
                "whole journals": core_seconds(lambda: whole_journals(runs, listed)),
            }
            before = tracked(statuses.of_all(listed), runs, "big", known)
            measured["further check, with MLflow"] = core_seconds(
                lambda: tracked(statuses.of_all(listed), runs, "big", known) == before  # noqa: B023
            )
            for name, value in measured.items():
                found.setdefault(name, []).append(value)
        share = launch_share(runs, listed, running, chosen.seconds)
    report(chosen, found, share)


def report(chosen: argparse.Namespace, found: dict[str, list[float]], share: float) -> None:
    """Print what was measured."""
    print(
        f"{chosen.stages} finished stages, {chosen.rounds} rounds, python {platform.python_version()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    spreads("seconds", found, digits=4)
    median = {name: statistics.median(values) for name, values in found.items()}
    watch = median["further check, with MLflow"] / STATUS_SECONDS
    print(f"share of a core, status --watch, a check every {STATUS_SECONDS:g} s: {100 * watch:.2f} %")
    print(f"share of a core, launch, a check every {CHECK_SECONDS:g} s: {100 * share:.2f} %")
    summary = {
        "status_seconds": median["status, on the clock"],
        "status_core_seconds": median["status, of a core"],
        "watch_core_percent": 100 * watch,
        "launch_core_percent": 100 * share,
        "check_over_whole_journals": median["further check"] / median["whole journals"],
    }
    print(json.dumps({name: float(f"{value:.3g}") for name, value in summary.items()}))


if __name__ == "__main__":
    main()
