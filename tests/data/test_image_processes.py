"""The processes that read image files: they end with what they read for, and ranks share them."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import ROOT
from fakes.forking import Forked, completed
from fakes.image_files import COUNT, epoch, find, write
from fakes.ranks import meeting
from fakes.waiting import limit

from suite.data.workers import prefetch
from suite.sweeps.stored import load_sweep


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder to spoil."""
    return write(tmp_path)


def test_workers_end_with_their_data_set_even_when_the_garbage_collector_finds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then their queues are closed before their loader asks them to end, so that it loses patience."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    images = find(folder, workers=1)
    epoch(images)
    workers = [worker.pid for worker in images._loader._iterator._workers]  # type: ignore[union-attr]
    images.__dict__["itself"] = images
    del images
    gc.collect()
    assert gone(workers, within=limit(5))


@pytest.mark.parametrize(
    ("workers", "batch_bytes", "ahead"),
    [(1, 1000, 4), (16, 38_535_168, 1), (8, 38_535_168, 3), (4, 38_535_168, 4), (2, 10**12, 1), (3, 0, 4)],
)
def test_what_is_decoded_ahead_is_bounded_in_bytes(workers: int, batch_bytes: int, ahead: int) -> None:
    assert prefetch(workers, batch_bytes) == ahead


TRAINING = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from suite.data import image_folder, verify
from suite.ranks import CPU, Ranks
from suite.recipe import Dataset, Precision, Sgd

if __name__ == "__main__":
    heard = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
    images = image_folder.find(Dataset("imagenet", size=32), "train", Path(sys.argv[1]), CPU)
    batches = images.train_batches(Sgd(1, 1, 0.1, crop="resized", precision=Precision("O0")), 0, 0, Ranks())
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


@pytest.fixture
def training(
    folder: Path, tmp_path: Path
) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], list[int]]]]:
    """Starts a process that has seen the first batch of an epoch, does what its last lines say, and leads a group;
    gives it and the pids of its workers."""
    started = []

    def start(rest: str) -> tuple[subprocess.Popen[str], list[int]]:
        script = tmp_path / "training.py"
        script.write_text(TRAINING + "".join(f"    {line}\n" for line in rest.splitlines()))
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LOCAL_WORLD_SIZE": "1", "SUITE_DATA_WORKERS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        workers = [int(pid) for pid in process.stdout.readline().split()]
        started.append((process, workers))
        return process, workers

    yield start
    for process, workers in started:
        process.kill()
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)
        process.communicate()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], within: float) -> bool:
    until = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_signals_to_the_whole_process_group_reach_the_main_process_and_spare_its_workers(
    training: Callable[[str], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    process, workers = training("sys.stdin.readline()\nprint(1 + sum(1 for _ in batches), *heard)")
    assert workers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        os.killpg(process.pid, number)
    time.sleep(0.3)
    said, errors = process.communicate("\n", timeout=limit(60))
    assert set(said.split()) == {str(COUNT), "SIGTERM", "SIGINT", "SIGUSR2"}, errors
    assert process.returncode == 0 and gone(workers, within=limit(5))


def test_workers_end_with_a_main_process_that_is_killed(
    training: Callable[[str], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    process, workers = training("time.sleep(600)")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    assert workers and all(map(alive, workers))
    process.kill()
    process.wait()
    assert gone([*workers, *map(int, children.split())], within=limit(10))


@pytest.mark.long  # one that is killed is above
def test_a_process_that_fails_in_mid_epoch_ends_and_so_do_its_workers(
    training: Callable[[str], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    process, workers = training("raise ValueError('the loss')")
    _, errors = process.communicate(timeout=limit(60))
    assert process.returncode == 1 and errors.rstrip().endswith("ValueError: the loss"), errors
    assert workers and gone(workers, within=limit(5))


SWEEP = """
from suite.methods.amax import Amax
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Training

def sweep():
    half = Precision("O2", "bfloat16")
    sgd = Sgd(2, 8, 0.01, crop="resized", precision=half, world_size=2)
    training = Training(Network("resnet20", classes=3), Dataset("imagenet", size=32), sgd)
    return [Recipe(training, Amax(8, 8, feed=Calibration(images=8, batch=4)))]
"""


FOLDERS = ("--data", ".", "--runs", "runs")


def suite(own: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (own / "own_sweep.py").write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SUITE_DATA_WORKERS": "0"}
    return completed([*words, *FOLDERS], own, environment, limit(240))


def test_a_training_and_a_calibration_run_from_files_on_two_ranks(own: Path) -> None:
    assert suite(own, "plan", "own_sweep.py").returncode == 0
    training, recipe = load_sweep(own / "runs", "own_sweep")
    environment = {**os.environ, "SUITE_DATA_WORKERS": "1"}
    ranks = [Forked(["run", training.key, *FOLDERS], own, environment | one) for one in meeting(2)]
    for process in ranks:
        assert process.wait(limit(240)) == 0, process.communicate()
    done = suite(own, "run", recipe.key)
    assert done.returncode == 0, done.stdout + done.stderr
    journals = [file.read_text() for file in (own / "runs").glob("*/events.jsonl")]
    digests = {find(own, split).digest for split in ("train", "test")}
    assert len(journals) == 2 and all(digest in journal for digest in digests for journal in journals)
    (report,) = (own / "runs").glob("*/artifacts/layers.json")  # of the recipe
    layers = json.loads(report.read_text())["layers"]
    assert len(layers) == 22 and all(one[of]["sqnr_db"] > 20 for one in layers for of in ("weight", "input"))


def test_damage_is_reported_before_anything_is_launched(own: Path) -> None:
    victim = next((own / "imagenet" / "train").rglob("*.JPEG"))
    victim.write_bytes(victim.read_bytes()[:-100])
    done = suite(own, "launch", "own_sweep.py", "--on", "torchrun", "--workers", "2")
    assert done.returncode == 2 and "1 of 29 images damaged" in done.stderr and victim.name in done.stderr
    assert not list((own / "runs").glob("*/events.jsonl"))
