"""Launching on this machine: nothing finished is lost or repeated, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fakes import ROOT
from fakes.forking import Forked
from fakes.statuses import status_of
from fakes.user import User
from fakes.waiting import limit, until
from hypothesis import given
from hypothesis import strategies as st

from suite import sweeps
from suite.launch import ends, local, local_jobs
from suite.launch.grouping import image_passes, jobs
from suite.launch.local import SHORT_TRAINING, Here
from suite.methods.amax import Amax
from suite.ranks import Ranks
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Stage, Training, over_ranks, plan
from suite.recipe.errors import SuiteError
from suite.record import lease
from suite.record.files import Folders
from suite.record.journal import read_events, read_progress
from suite.run.stage import run
from suite.stop import REQUEUE
from suite.sweeps.stored import load_sweep, save_sweep

SWEEP = """
from suite.methods.amax import Amax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(failing: int = 0, more: int = 0):
    sgd = Sgd(epochs=1, batch=256, lr=1e20 if failing else 0.05, pad=1, flip=False, precision=Precision("O0"))
    training = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
    widths = [(8, 8), (6, 6), (4, 4), (3, 3), *((2 + at % 14, 9 + at // 14) for at in range(more))]
    return [Recipe(training, Amax(*pair)) for pair in widths]
"""

MANY = ("--more", "16")
"""So many recipes more: some seconds in which the launch can be disturbed."""


@pytest.fixture(autouse=True)
def _prepared(tmp_path: Path, database: bytes) -> None:
    """MLflow's database is there, as after an earlier launch; making one takes seconds."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_bytes(database)


def start(folder: Path, *words: str) -> Forked:
    (folder / "own.py").write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SUITE_RUNS": str(folder / "runs")}
    return Forked(["launch", "own.py", *words], folder, environment)


def finish(process: Forked) -> str:
    said, _ = process.communicate(timeout=limit(240))
    return said


def attempts(folder: Path, stages: tuple[Stage, ...]) -> dict[str, int]:
    return {
        s.key: max((e["attempt"] for e in read_events(folder / "runs" / s.key)), default=0) for s in stages
    }


def outcomes(folder: Path) -> int:
    return len(list((folder / "runs").glob("*/outcome.json")))


def wait_for_outcomes(folder: Path, count: int, process: Forked) -> None:
    until(lambda: outcomes(folder) >= count or process.poll() is not None, seconds=120)
    assert outcomes(folder) >= count, finish(process)


@pytest.mark.parametrize(
    ("killed_by", "after"), [(signal.SIGTERM, 1), pytest.param(signal.SIGKILL, 2, marks=pytest.mark.long)]
)
def test_a_launch_that_is_stopped_goes_on_and_repeats_no_finished_run(
    tmp_path: Path, killed_by: signal.Signals, after: int
) -> None:
    process = start(tmp_path, "--workers", "1", *MANY)
    wait_for_outcomes(tmp_path, after, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(killed_by)
    said = finish(process)
    if killed_by is signal.SIGTERM:  # as Ctrl-C: see _interrupt
        assert process.returncode == 130 and "finished runs are kept" in said
    stages = load_sweep(tmp_path / "runs", "own")
    # workers of a killed launcher end their job, which may have several stages
    until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))
    done = {s.key for s in stages if status_of(s, tmp_path / "runs").state == "done"}
    assert len(done) >= after
    before = attempts(tmp_path, stages)
    assert "\n21 stages: 21 done\n" in finish(start(tmp_path, "--workers", "1", *MANY))
    now = attempts(tmp_path, stages)
    assert all(now[key] == before[key] for key in done)
    assert all(count <= 2 for count in now.values())


def test_an_interrupt_while_a_process_starts_leaves_none_behind(
    tmp_path: Path, tiny_training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*words: object, **how: object) -> subprocess.Popen[bytes]:
        started.append(popen(["sleep", "600"], start_new_session=True))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    here = Here(Folders(tmp_path, tmp_path), 1)
    here.submit([tiny_training])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in this process had its own
    try:
        with monkeypatch.context() as patched:
            patched.setattr(local.subprocess, "Popen", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(here.watch())
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].poll() == -signal.SIGTERM


def test_a_worker_that_is_killed_costs_its_own_stage_only(tmp_path: Path) -> None:
    process = start(tmp_path, *MANY)
    wait_for_outcomes(tmp_path, 1, process)
    stages = load_sweep(tmp_path / "runs", "own")
    begun: list[Stage] = []

    def has_begun() -> bool:
        assert process.poll() is None
        running = [s for s in stages if status_of(s, tmp_path / "runs").state == "running"]
        begun.extend(s for s in running if attempts(tmp_path, (s,))[s.key])
        return bool(begun)

    until(has_begun, every=0.05)
    victim = begun[0]
    os.kill(int(lease.holder(tmp_path / "runs" / victim.key).split()[1]), signal.SIGKILL)
    said = finish(process)
    assert process.returncode == 1
    now = status_of(victim, tmp_path / "runs")
    assert (now.state, now.cause) == ("failed", "code")
    assert (
        "1 failed" in said
        and f"{victim.name} ({victim.key}): its process was killed by SIGKILL and recorded no error" in said
    )
    others = {status_of(s, tmp_path / "runs").state for s in stages if s != victim}
    assert others <= {"done", "pending"}, "which another launch runs"


def test_a_failing_training_fails_its_recipes_with_the_first_line_of_the_error(tmp_path: Path) -> None:
    process = start(tmp_path, "--failing", "1")
    said = finish(process)
    assert process.returncode == 1
    stages = load_sweep(tmp_path / "runs", "own")
    states = {type(s).__name__: status_of(s, tmp_path / "runs").state for s in stages}
    assert states == {"Training": "failed", "Recipe": "pending"}
    assert "the loss became" in said and "5 stages: 1 failed, 4 pending" in said


def test_what_a_light_job_fails_at_does_not_stop_the_rest(tmp_path: Path) -> None:
    """One of four recipes finds a directory in the way of its record; the other three are done."""
    (tmp_path / "own.py").write_text(SWEEP)
    training, victim, *_ = plan(sweeps.find(str(tmp_path / "own.py")).stages([])[0])
    run(training, Ranks(), Folders(tmp_path / "runs", tmp_path))
    (tmp_path / "runs" / victim.key / "stage.json").mkdir(parents=True)
    process = start(tmp_path, "--workers", "1")
    said = finish(process)
    assert process.returncode == 1
    assert "5 stages: 4 done, 1 failed" in said
    assert f"{victim.name} ({victim.key}): IsADirectoryError" in said


def test_asking_whether_a_stage_is_locked_never_keeps_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    checking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from suite.record.lease import locked; from pathlib import Path\n"
            f"folder = Path({str(tmp_path)!r})\n"
            "while True: locked(folder) or (folder / 'begun').touch()",
        ],
        cwd=ROOT,
    )
    try:
        until((tmp_path / "begun").exists)
        for _ in range(500):
            with lease.lock(tmp_path):
                pass
    finally:
        checking.kill()
        checking.wait()
    assert not lease.locked(tmp_path)


def test_a_stage_that_another_process_runs_is_not_launched_again(
    tmp_path: Path, tiny_training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    from suite.launch.preflight import check_idle

    with (
        lease.lock(tmp_path / tiny_training.key),
        pytest.raises(SuiteError, match=f"is being run by process {os.getpid()}"),
    ):
        check_idle([tiny_training], Folders(tmp_path, tmp_path))


@given(st.integers(1, 9))
def test_jobs_hold_every_stage_once_and_one_that_trains_alone(parts: int) -> None:
    stages = plan(sweeps.find("quick").stages([])[0])
    made = jobs(stages, parts)
    assert sorted(s.key for job in made for s in job) == sorted(s.key for s in stages)
    for job in made:
        assert len(job) == 1 or all(isinstance(s, Recipe) for s in job)
        assert len({s.needs for s in job}) == 1
    assert len(made) == 2 + 2 * 3 + 2 * parts  # trainings, three recipes a seed that train, light ones


def test_on_one_machine_short_trainings_share_a_process_with_what_is_light() -> None:
    stages = plan(sweeps.find("quick").stages([])[0])
    together = jobs(stages, 2, SHORT_TRAINING)
    assert len(together) == 2 + 2 * 2 and sum(map(len, together)) == len(stages)
    assert sorted(sum(bool(s.trains_by) for s in job) for job in together[2:]) == [1, 1, 2, 2]
    wide = [over_ranks(stage, 2) for stage in stages]
    assert len(jobs(plan(wide), 2, SHORT_TRAINING)) == 2 + 2 * 3 + 2 * 2


def test_a_longer_training_costs_more() -> None:
    short, long = (
        next(s for s in plan(sweeps.find("quick").stages(["--epochs", n])[0]) if isinstance(s, Training))
        for n in ("2", "4")
    )
    assert image_passes(long) == 2 * image_passes(short) > 0


def test_a_run_that_no_launcher_has_is_cancelled_too(tmp_path: Path) -> None:
    user = User(tmp_path, "here")
    sgd = Sgd(10000, 200, 0.05, pad=1, flip=False, precision=Precision("O0"))
    training = Training(Network("resnet20"), Dataset("digits", size=8), sgd)
    save_sweep(user.runs, "own", {}, [training])
    process = user.start("run", training.key)
    user.launches.append(process)
    user.until(lambda: read_progress(user.runs / training.key) is not None)
    assert f"process {process.pid}" in user("status", "own")
    assert "1 job of own cancelled" in user("cancel", "own")
    said = finish(process)
    assert process.returncode == REQUEUE and "SIGTERM: train" in said
    assert len(list((user.runs / training.key).glob("resume-*.pt"))) == 1


def test_a_stage_that_waits_for_another_launch_is_not_launched_again(
    tmp_path: Path, tiny_training: Training
) -> None:
    recipe = Recipe(tiny_training, Amax(8, 8))
    here = Here(Folders(tmp_path, tmp_path), 1)
    launch = local_jobs.record(tmp_path, "torchrun", [[tiny_training.key], [recipe.key]])
    here.check([recipe])
    with lease.lock(launch.folder):
        with pytest.raises(SuiteError, match=f"waits for process {os.getpid()} .* cancel it first"):
            here.check([recipe])
        launch.skip({recipe.key})
        here.check([recipe])
        launch.note_ended(tiny_training.key)
        here.check([tiny_training])


def test_what_failed_before_a_launch_is_queued_in_it_and_what_fails_in_it_has_failed(
    tmp_path: Path, tiny_training: Training
) -> None:
    here = Here(Folders(tmp_path, tmp_path), 1)

    def state() -> str:
        return here.status([status_of(tiny_training, tmp_path)])[0][0].state

    ends.record_failure(tmp_path / tiny_training.key, "disk", "it is full")
    assert state() == "failed"
    with lease.lock(local_jobs.record(tmp_path, "here", [[tiny_training.key]]).folder):
        assert state() == "queued"
        ends.record_failure(tmp_path / tiny_training.key, "memory", "there is none")
        assert state() == "failed"
    assert state() == "failed"
