"""Journals of runs that never were, and what MLflow's tables have of them, counted by SQL."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from fakes import ROOT
from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Stage, Training, plan
from suite.record import lease
from suite.record.journal import Journal, counted_metrics, read_events

COMMAND = ROOT / "mlflow-server" / "server"
EPOCHS = 4
SGD = Sgd(epochs=EPOCHS, batch=128, lr=0.05, precision=Precision("O0"))
Point = tuple[str, str, int, float, int]
"""(stage key, metric, step, value, milliseconds since 1970)."""

POINTS = """
select tags.value, metrics.key, metrics.step, metrics.value, metrics.timestamp
from metrics join runs using (run_uuid) join tags using (run_uuid) join experiments using (experiment_id)
where tags.key = 'stage_key' and runs.lifecycle_stage = 'active' and experiments.name = 'SWEEP'
and metrics.key not in ('drop', 'drop_low', 'drop_high')  -- which a sync computes
and metrics.key not like 'system%'  -- which are in a file of their own
"""
RUNS = """
select tags.value, runs.status from runs join tags using (run_uuid) join experiments using (experiment_id)
where tags.key = 'stage_key' and runs.lifecycle_stage = 'active' and experiments.name = 'SWEEP'
"""


def stages(count: int) -> tuple[Stage, ...]:
    """At most `count` stages: trainings, and 24 recipes of each."""
    listed: list[Recipe] = []
    for seed in range(-(-count // 25)):
        training = Training(Network("resnet20"), Dataset("digits"), SGD, seed=seed)
        for bits in range(2, 14):
            listed += [Recipe(training, Amax(bits, bits)), Recipe(training, KSigma(bits))]
    return plan(listed)[:count]


def write_run(runs: Path, stage: Stage, pause: float = 0.0, attempts: int = 1) -> None:
    """What a run of `stage` leaves after that many attempts, of which all but the last die in a line, and the next
    goes on from an epoch before. `pause` is seconds after each epoch."""
    (runs / stage.key).mkdir(parents=True, exist_ok=True)
    first = 1
    for attempt in range(1, attempts + 1):
        with lease.lock(runs / stage.key):
            journal = Journal(runs / stage.key)
            journal.write("started", host="node1", pid=os.getpid(), device="cpu", commit="c0ffee", job="17.0")
            journal.write("data", split="train", images=1198, sha256="a1" * 32)
            for epoch in range(first, (EPOCHS if attempt == attempts else EPOCHS - 1) + 1):
                journal.metrics(epoch, train_loss=attempt / epoch, train_images_per_s=math.pi * 100)
                journal.metrics(
                    epoch, top1=50.0 + epoch, top5=99.0, loss=0.1, images_per_s=9e2, model_size_mb=0.3
                )
                time.sleep(pause)
            if attempt == attempts:
                journal.artifact("curve.csv", b"epoch,top1\n")
                journal.finish(stage.key, top1=50.0 + EPOCHS, top5=99.0, loss=0.1)
            journal.close()
        if attempt < attempts:
            with (runs / stage.key / "events.jsonl").open("a") as torn:
                torn.write('{"seq": 99, "time": 1e9, "attempt": 1, "event": "metr')
            first = EPOCHS - 1


def unsealed(file: Path) -> None:
    """Turn a journal into an older version's, whose lines had no checksum."""
    file.write_bytes(re.sub(rb', "crc32": "[0-9a-f]{8}"', b"", file.read_bytes()))


def write_share(runs: Path, share: Sequence[Stage], pause: float) -> None:
    """The work of one writer: its runs one after the other, every fifth in two attempts."""
    for number, stage in enumerate(share):
        write_run(runs, stage, pause, attempts=1 + (number % 5 == 2))


def written(runs: Path, listed: Sequence[Stage]) -> Counter[Point]:
    """What MLflow has to have."""
    found: Counter[Point] = Counter()
    for stage in listed:
        for event in counted_metrics(read_events(runs / stage.key))[0]:
            for name, value in event["values"].items():
                found[stage.key, name, event["step"], value, int(event["time"] * 1000)] += 1
    return found


class Embedded:
    """The SQLite file of a runs folder."""

    def __init__(self, runs: Path) -> None:
        self.file = runs / "mlflow.db"

    def __str__(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def ask(self, query: str, sweep: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.file, timeout=30)) as database:
            return database.execute(query.replace("SWEEP", sweep)).fetchall()


class Server:
    """MLflow on PostgreSQL in `folder`, as `make mlflow-server` starts it, on a port of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.address = folder, port, f"http://127.0.0.1:{port}"
        self.lines = self("up", str(port))
        self.password = (folder / "admin-password").read_text().strip()
        self.environment = {
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    def __call__(self, command: str, *arguments: str) -> str:
        """What the command prints, on both streams, when it succeeds."""
        done = self.attempt(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def attempt(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHON": sys.executable}
        words = [COMMAND, command, str(self.folder), *arguments]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=180)

    def __str__(self) -> str:
        return (
            f"PostgreSQL {(self.folder / 'database' / 'PG_VERSION').read_text().strip()}, server with login"
        )

    def ask(self, query: str, sweep: str) -> list[tuple[object, ...]]:
        import psycopg

        place = f"dbname=mlflow user=mlflow host={self.folder / 'socket'}"
        with psycopg.connect(place) as database:
            return database.execute(query.replace("SWEEP", sweep).encode()).fetchall()


def difference(
    store: Embedded | Server, sweep: str, runs: Path, listed: Sequence[Stage]
) -> tuple[int, int, int]:
    """(points that MLflow has, that it lost, that it has beyond or twice)."""
    found = Counter(store.ask(POINTS, sweep))
    wanted = written(runs, listed)
    return found.total(), (wanted - found).total(), (found - wanted).total()
