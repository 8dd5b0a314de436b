"""Sweeps that ran, and what MLflow has of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from fakes.waiting import limit
from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.methods.percentile import Percentile
from suite.methods.qat_symmetric import QatSymmetric
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Stage, Training, plan
from suite.record.journal import Journal
from suite.track import store, sync

EPOCHS = 4


SGD = Sgd(epochs=EPOCHS, batch=128, lr=0.05, precision=Precision("O0"))


TRAININGS = [Training(Network("resnet20"), Dataset("digits", size=8), SGD, seed=seed) for seed in (0, 1)]


QAT = Sgd(epochs=2, batch=128, lr=0.01, precision=Precision("O0"))


METHODS = [Amax(4, 4), Amax(8, 8), KSigma(5), KSigma(8), Percentile(4, 4), QatSymmetric(feed=QAT)]


SWEEP = plan([Recipe(training, method) for method in METHODS for training in TRAININGS])


RECIPES = [stage for stage in SWEEP if isinstance(stage, Recipe)]


def synced(runs: Path, *stages: Any) -> MlflowClient:
    """MLflow after a sync of these stages, or of the whole sweep."""
    sync.sync("demo", stages or SWEEP, runs)
    return MlflowClient(store.uri(runs))


def opened(runs: Path, stage: Stage) -> Journal:
    """The journal of a further attempt at `stage`, after its first event."""
    (runs / stage.key).mkdir(parents=True, exist_ok=True)
    journal = Journal(runs / stage.key)
    journal.write("started", host="node1", pid=1, device="cpu", commit="c0ffee")
    return journal


def score(journal: Journal, step: int, top1: float, loss: float = 0.5) -> None:
    journal.metrics(step, top1=top1, top5=100.0, loss=loss, images_per_s=900.0, model_size_mb=0.3)


def run_through(runs: Path, stage: Stage, top1: float = 90.0) -> None:
    """What a run of `stage` leaves, without the work; each epoch is 5 points better than the one before."""
    journal = opened(runs, stage)
    epochs = EPOCHS if isinstance(stage, Training) else 2 if stage.trains_by else 0
    for epoch in range(1, epochs + 1):
        journal.metrics(epoch, train_loss=1 / epoch, train_images_per_s=300.0)
        score(journal, epoch, top1 - 5 * (epochs - epoch), 2 / epoch)
    if not epochs:
        score(journal, 0, top1)
    journal.finish(stage.key, top1=top1, top5=100.0, loss=0.5)
    journal.close()


def run_sweep(runs: Path) -> None:
    """All of SWEEP, no two with the same top1."""
    for number, stage in enumerate(SWEEP):
        run_through(runs, stage, top1=50 + number)


def runs_in(where: str, sweep: str = "demo") -> list[Any]:
    client = MlflowClient(where)
    experiment = client.get_experiment_by_name(sweep)
    return list(client.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []


def the_run(runs: Path, stage: Stage) -> Any:
    (found,) = [run for run in runs_in(store.uri(runs)) if run.data.tags["stage_key"] == stage.key]
    return found


def points(where: str, run: Any) -> list[tuple[str, int, float, int]]:
    """(metric, step, value, milliseconds) as often as MLflow has them, but for those that a sync computes."""
    client = MlflowClient(where)
    recorded = [name for name in run.data.metrics if name not in ("drop", "drop_low", "drop_high")]
    history = [point for name in recorded for point in client.get_metric_history(run.info.run_id, name)]
    return sorted((point.key, point.step, point.value, point.timestamp) for point in history)


def content(where: str) -> dict[str, Any]:
    """Everything that MLflow has of the sweep, but for the ids it chose itself."""
    found = {}
    for run in runs_in(where):
        own = ("mlflow.note.content", "mlflow.user", "run_directory", "checkpoint")
        tags = {name: value for name, value in run.data.tags.items() if name not in own}
        info = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
        assert tags["stage_key"] not in found, f"two runs of {run.info.run_name}"
        found[tags["stage_key"]] = (info, run.data.params, tags, points(where, run))
    return found


@contextmanager
def serving(*arguments: str, cwd: Path) -> Iterator[str]:
    """The address of a real `mlflow server` on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1", "--port", port]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**os.environ, **settings}
    with (cwd / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, *arguments],
            cwd=cwd,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(int(limit(600))):  # ten a second
            assert server.poll() is None, (cwd / "server.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((cwd / "server.log").read_text())
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
