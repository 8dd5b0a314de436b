"""A run that is stopped, politely or not, goes on as if it had not been: bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import ROOT
from fakes.forking import Forked
from fakes.ranks import meeting
from fakes.statuses import status_of
from fakes.stopping import StopsAfter
from fakes.trainings import TINY, TINY_IMAGES
from fakes.waiting import limit, until

from suite.launch import verify_resume
from suite.launch.local_process import elastic
from suite.ranks import Ranks
from suite.recipe import Precision, Recipe, Sgd, Stage, Training
from suite.record.journal import read_events
from suite.run import checkpoint
from suite.run.stage import Folders, InterruptedRunError, run
from suite.stop import REQUEUE
from suite.sweeps.stored import save_sweep
from suite.train.tally import DivergedError

HALF = Precision("O2", "bfloat16")


def training(epochs: int = 2, lr: float = 0.05, world_size: int = 1) -> Training:
    """Of 12 steps an epoch, each of a moment."""
    sgd = Sgd(epochs, 6, lr, pad=1, flip=False, precision=HALF, world_size=world_size)
    return Training(TINY, TINY_IMAGES, sgd)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The training of one rank, which nobody stopped."""
    folders = Folders(tmp_path_factory.mktemp("alone"), Path("unused"))
    run(training(), Ranks(), folders)
    return folders


@pytest.mark.parametrize("at", [0, 11, 20])
def test_a_run_asked_to_stop_at_any_step_saves_and_goes_on(at: int, alone: Folders, tmp_path: Path) -> None:
    """12 steps an epoch: at the first, before an epoch's end, within the second."""
    stage, folders = training(), Folders(tmp_path, Path("unused"))
    with pytest.raises(
        InterruptedRunError, match=f"stopped at epoch {at // 12 + 1}, step {at + 1}, which is saved"
    ):
        run(stage, Ranks(), folders, StopsAfter(at))
    assert status_of(stage, tmp_path).state == "stopped"
    assert len(checkpoint.resumable(tmp_path / stage.key)) == 1
    run(stage, Ranks(), folders)
    assert verify_resume.compare(alone.runs / stage.key, tmp_path / stage.key) == []
    names = [event["event"] for event in read_events(tmp_path / stage.key)]
    assert names.count("interrupted") == names.count("resumed") == 1
    assert not checkpoint.resumable(tmp_path / stage.key), "nothing is left of it"


def test_the_previous_state_is_used_when_the_newest_is_torn(alone: Folders, tmp_path: Path) -> None:
    stage, folders = training(), Folders(tmp_path, Path("unused"))
    for checks in (5, 3, 3):  # each further attempt begins where the one before stopped
        with pytest.raises(InterruptedRunError):
            run(stage, Ranks(), folders, StopsAfter(checks))
    newest, previous = checkpoint.resumable(tmp_path / stage.key)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    run(stage, Ranks(), folders)
    resumed = [e["file"] for e in read_events(tmp_path / stage.key) if e["event"] == "resumed"]
    assert resumed[-1] == previous.name
    assert verify_resume.compare(alone.runs / stage.key, tmp_path / stage.key) == []


def test_what_is_compared_is_found_when_it_differs(alone: Folders, tmp_path: Path) -> None:
    other = replace(training(), seed=1)
    run(other, Ranks(), Folders(tmp_path, Path("unused")))
    found = verify_resume.compare(alone.runs / training().key, tmp_path / other.key)
    assert len(found) == 3 and "tensors, first" in found[2]


def start(stage: Stage, runs: Path, save_seconds: int = 0) -> list[Forked]:
    """The processes of its ranks, which save their state every so many seconds."""
    save_sweep(runs, "resume", {}, [stage])
    words = ["run", stage.key, "--runs", str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SUITE_SAVE_SECONDS": str(save_seconds)}
    if stage.world_size == 1:
        return [Forked(words, runs, environment)]
    return [Forked(words, runs, environment | one) for one in meeting(stage.world_size)]


def wait_for(file: str, processes: Sequence[subprocess.Popen[str] | Forked], folder: Path) -> None:
    """Wait until the run directory has such a file, while its processes go on."""
    until(lambda: bool(list(folder.glob(file))) or processes[0].poll() is not None, every=0.02)
    assert processes[0].poll() is None, processes[0].communicate()[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_polite_signal_saves_once_and_leaves_with_the_status_for_requeue(
    number: signal.Signals, tmp_path: Path
) -> None:
    stage = training(epochs=10_000)  # which never ends by itself
    [process] = start(stage, tmp_path, save_seconds=300)
    wait_for("progress.json", [process], tmp_path / stage.key)
    process.send_signal(number)
    said, _ = process.communicate(timeout=limit(60))
    assert process.returncode == REQUEUE == 75, said
    assert f"{number.name}: {stage.name}: stopped at epoch" in said and "Traceback" not in said
    assert read_events(tmp_path / stage.key)[-1]["event"] == "interrupted"
    assert len(checkpoint.resumable(tmp_path / stage.key)) == 1


@pytest.mark.long  # tests/launch/test_contract.py cancels what torchrun runs
def test_a_signal_to_torchrun_stops_all_ranks_at_one_step_with_one_save(tmp_path: Path) -> None:
    stage = training(epochs=10_000, world_size=2)
    save_sweep(tmp_path, "resume", {}, [stage])
    process = subprocess.Popen(
        [sys.executable, *elastic(2), "-m", "suite", "run", stage.key, "--runs", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for("progress.json", [process], tmp_path / stage.key)
    process.send_signal(signal.SIGUSR2)
    said, _ = process.communicate(timeout=limit(90))
    assert process.returncode != 0
    recorded = [e for e in read_events(tmp_path / stage.key) if e["event"] == "interrupted"]
    assert len(recorded) == 1 and recorded[0]["signal"] == "SIGUSR2", said[-2000:]
    assert len(checkpoint.resumable(tmp_path / stage.key)) == 1
    assert status_of(stage, tmp_path).state == "stopped"


def test_a_training_of_two_ranks_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    stage = training(epochs=4, world_size=2)
    for process in start(stage, tmp_path / "alone"):
        assert process.wait(limit(120)) == 0, process.communicate()[0]
    folder = tmp_path / "killed" / stage.key
    killed = start(stage, tmp_path / "killed")
    wait_for("resume-*.pt", killed, folder)
    for process in killed:
        process.kill()
        process.wait()
    for process in start(stage, tmp_path / "killed"):
        assert process.wait(limit(120)) == 0, process.communicate()[0]
    assert [event["event"] for event in read_events(folder)].count("resumed") == 1
    assert verify_resume.compare(tmp_path / "alone" / stage.key, folder) == []


@pytest.mark.long
def test_runs_that_are_killed_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """`verify-resume` on a training and a QAT of two ranks under O2."""
    _, _, training, recipe = verify_resume.stages([2])
    assert isinstance(recipe, Recipe) and recipe.needs == (training,)
    verdicts = list(verify_resume.verify([training, recipe], tries=3, seed=int(time.time()), folder=tmp_path))
    assert [verdict.differences for verdict in verdicts] == [(), ()]
    assert sum(verdict.kills for verdict in verdicts) >= 4


def test_a_training_that_diverges_says_so_with_its_step_and_its_last_good_state(tmp_path: Path) -> None:
    stage, folders = training(lr=1e18), Folders(tmp_path, Path("unused"))
    with pytest.raises(DivergedError, match=r"became inf or NaN in step \d+"):
        run(stage, Ranks(), folders)
    last = read_events(tmp_path / stage.key)[-1]
    assert (last["event"], last["cause"]) == ("failed", "diverged")
    assert last["error"].endswith("; no state was saved before it")
    assert status_of(stage, tmp_path).state == "failed"


def test_a_training_that_diverges_late_names_the_state_before(tmp_path: Path) -> None:
    """A run that saved a good state, whose weights are then spoiled."""
    stage, folders = training(), Folders(tmp_path, Path("unused"))
    with pytest.raises(InterruptedRunError):
        run(stage, Ranks(), folders, StopsAfter(4))
    file = checkpoint.resumable(tmp_path / stage.key)[0]
    state = torch.load(file, weights_only=True)
    state["model"]["linear.weight"].fill_(torch.nan)
    file.unlink()
    spoiled = checkpoint.save_resumable(state, tmp_path / stage.key, 5)
    with pytest.raises(DivergedError, match="in step 6"):
        run(stage, Ranks(), folders)
    assert status_of(stage, tmp_path).error.endswith(f"the last good state is {spoiled.name}")


def test_states_to_resume_from_are_whole_and_two_at_most(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        checkpoint.save_resumable({"step": step}, tmp_path, step)
    assert [file.name.split("-")[1] for file in checkpoint.resumable(tmp_path)] == [
        "0000000010",
        "0000000003",
    ]
    found = checkpoint.load_resumable(tmp_path)
    assert found is not None and found[0] == {"step": 10}
    for file in checkpoint.resumable(tmp_path):
        file.write_bytes(b"")
    assert checkpoint.load_resumable(tmp_path) is None


def test_what_somebody_puts_beside_saved_states_is_none(tmp_path: Path) -> None:
    """A name without a checksum fits every content, and one without a step ended a job before it was queued again."""
    file = checkpoint.save_resumable({"step": 3}, tmp_path, 3)
    for name in (
        "resume-.pt",
        "resume-old.pt",
        "resume-0000000009-.pt",
        "resume-0000000009-a.pt",
        "learned-.pt",
    ):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f"resume-0000000009-{'0' * 16}.pt").mkdir()
    assert checkpoint.resumable(tmp_path) == [file]
    assert checkpoint.load_resumable(tmp_path) == ({"step": 3}, file)
    assert checkpoint.load_kept(tmp_path, checkpoint.LEARNED) is None


@pytest.mark.parametrize("left", ["half of it", "all but a bit"])
def test_a_run_whose_journal_lost_what_its_states_build_on_records_it_again(
    alone: Folders, tmp_path: Path, left: str
) -> None:
    stage, folders = training(), Folders(tmp_path, Path("unused"))
    with pytest.raises(InterruptedRunError):
        run(stage, Ranks(), folders, StopsAfter(20))
    file = tmp_path / stage.key / "events.jsonl"
    content = file.read_bytes()
    metrics = content.index(b'"metrics"')
    file.write_bytes(content[:metrics] + (b"" if left == "half of it" else b"'" + content[metrics + 1 :]))
    run(stage, Ranks(), folders)
    assert "resumed" not in [event["event"] for event in read_events(tmp_path / stage.key)]
    assert verify_resume.compare(alone.runs / stage.key, tmp_path / stage.key) == [], "metrics included"
