"""How planning, status, a launcher in which nothing happens, and the report grow from 100 to 10,000 stages.

The stages are simulated: finished runs are written as real ones leave them (`benchmarks.status` and `.analysis`), and
none is run. Measured are
- plan, status, report: whole commands, seconds on the clock and of a core, and the report's peak of resident memory;
- sync: seconds from the last of 100 events a second, which ten runs record, until MLflow in the runs folder has all;
- idle: the live view of a launcher and the check of MLflow's follower while all stages but one are done and that one
  writes nothing, percent of a core.

`exponent` is the largest of the three commands' slopes of log(seconds of a core) over log(stages) between the two
largest numbers of stages, after the seconds of two stages are taken off: 1 is linear. Of fewer than a thousand stages
those seconds are nearly all, and the slope is noise.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from benchmarks.analysis import report, write_sweep
from benchmarks.status import command, core_seconds, stages, write_finished
from benchmarks.submission import SWEEP
from suite.cli.live import Watch
from suite.record.journal import Journal
from suite.record.lease import lock
from suite.record.status import Statuses
from suite.record.synced import note_synced
from suite.sweeps.stored import save_sweep
from suite.track import store
from suite.track.follow import EVERY_SECONDS, Follower

COMMANDS = ("plan", "status", "report")
EVENTS, BUSY = 100, 10
"""Events a second, and the runs that record them, while MLflow is kept up to date."""
RECIPES = 24
"""Of each training of the sweep that is planned."""

Measured = dict[str, float]


def idle_percent(runs: Path, count: int, seconds: float) -> float:
    """The percent of a core that a launcher takes in which nothing happens."""
    *done, running = stages(count)
    listed, follower = [*done, running], Statuses(runs)
    with lock(runs / running.key):

        def ticks() -> Iterator[None]:
            checked, until = 0.0, time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.1)
                if time.monotonic() > checked + EVERY_SECONDS:
                    follower.of_all(listed)
                    checked = time.monotonic()
                yield

        watch = Watch(Console(file=io.StringIO(), force_terminal=True, width=120), listed, runs)
        for statuses in (watch.statuses, follower):
            statuses.of_all(listed)  # what is read once, when a launch begins
        began = time.perf_counter()
        used = core_seconds(lambda: watch.follow(ticks()))
        return 100 * used / (time.perf_counter() - began)


def sync_lag(seconds: float) -> float:
    """Seconds from the last of EVENTS events a second, recorded for so long, until MLflow has all of them."""
    with tempfile.TemporaryDirectory() as place:
        runs, listed = Path(place), stages(BUSY)
        save_sweep(runs, "busy", {}, listed)
        store.prepare(runs)
        for stage in listed:
            (runs / stage.key).mkdir()
        journals = [Journal(runs / stage.key) for stage in listed]
        follower = Follower("busy", listed, runs)
        follower.start()
        began, number = time.monotonic(), 0
        while number < EVENTS * seconds:
            if time.monotonic() > began + number / EVENTS:
                journals[number % BUSY].metrics(1 + number // BUSY, top1=float(number))
                number += 1
            else:
                time.sleep(0.001)
        ended = time.monotonic()
        with closing(sqlite3.connect(runs / "mlflow.db", timeout=30)) as database:
            while database.execute("select count(*) from metrics where key = 'top1'").fetchone()[0] < number:
                time.sleep(0.1)
        took = time.monotonic() - ended
        follower.finish()
        return took


def measure(count: int, seconds: float) -> Measured:
    """All of it for `count` stages or a few more."""
    found: Measured = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "own_big.py").write_text(SWEEP)
        trainings = str(max(1, round(count / (1 + RECIPES))))
        found["plan"], found["plan, core"] = command(folder, "plan", "own_big.py", "--trainings", trainings)
        listed = stages(count)
        save_sweep(folder / "runs", "big", {}, listed)
        for stage in listed[:-1]:
            write_finished(folder / "runs", stage)
        note_synced(folder / "runs", "big", {stage.key: 10**6 for stage in listed}, {})
        found["status"], found["status, core"] = command(folder, "status", "big")
        found["idle, % of a core"] = idle_percent(folder / "runs", count, seconds) if seconds else 0.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_sweep(folder / "runs", count, epochs=30)
        found["report"], found["report, core"], found["report, GiB"] = report(folder / "runs")
    return found


def slope(counts: Sequence[int], values: Sequence[float]) -> float:
    """Of log(values) over log(counts), by least squares."""
    xs, ys = ([math.log(max(value, 1e-3)) for value in listed] for listed in (counts, values))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stages", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--seconds", type=float, default=20, help="how long nothing happens")
    chosen = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    lag = sync_lag(chosen.seconds)
    start, measured = measure(2, 0), {count: measure(count, chosen.seconds) for count in chosen.stages}
    print(
        f"simulated stages, one round, python {platform.python_version()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'seconds':24s}" + "".join(f"{count:>12,}" for count in (2, *chosen.stages)))
    for name in start:
        print(f"{name:24s}" + "".join(f"{found[name]:12.2f}" for found in (start, *measured.values())))
    print(f"{'sync':24s}{lag:12.2f}  after the last of {EVENTS} events a second")
    grown = {}
    for name in COMMANDS:
        beyond = [found[f"{name}, core"] - start[f"{name}, core"] for found in measured.values()]
        grown[name] = slope(chosen.stages[-2:], beyond[-2:])
        print(f"{name} grows as stages to the power of {grown[name]:.2f}")
    most = measured[max(chosen.stages)]
    summary = {
        "plan_seconds": most["plan"],
        "status_seconds": most["status"],
        "idle_cpu_percent": most["idle, % of a core"],
        "exponent": max(grown.values()),
    }
    print(json.dumps({name: float(f"{value:.3g}") for name, value in summary.items()}))


if __name__ == "__main__":
    main()
