"""A sweep is launched, resumed and shown by its launcher, and a launch is remembered."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import ROOT
from fakes.commands import SWEEP, refused
from fakes.forking import completed
from fakes.waiting import limit

from suite.cli.main import main
from suite.launch.launched import Launched, last_launched, record_launched
from suite.sweeps.stored import load_sweep


def test_workers_below_one_are_refused(capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path) -> None:
    assert "--workers 0 is too few" in refused(capsys, "launch", own, "--workers", "0", "--runs", tmp_path)


def test_a_training_of_several_ranks_is_refused_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "wide.py").write_text(SWEEP.replace("epochs=epochs", "epochs=epochs, world_size=4"))
    said = refused(capsys, "launch", tmp_path / "wide.py", "--runs", tmp_path / "runs")
    assert "is shared by 4 ranks" in said and "--gpus-per-run 1" in said


def test_plan_takes_the_number_of_gpus_that_share_a_training(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    words = ("plan", own, "--gpus-per-run", "2", "--runs", str(tmp_path))
    assert "--on here gives it up to 1" in refused(capsys, *words)
    assert main([*words, "--on", "torchrun", "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert "world size 2" in said and ": 2 ranks, after nothing" in said


def test_launch_run_status_and_sync_work_on_a_users_own_file(
    own: str, tmp_path: Path, database: bytes
) -> None:
    """The whole way in processes, from another folder than the clone. Its report: tests/cli/test_console_script.py."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SUITE_RUNS": str(tmp_path / "runs")}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_bytes(database)

    def call(*words: str) -> str:
        done = completed(words, tmp_path, environment, limit(240))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = call("launch", "own.py", "--only", "w8a8")
    assert "2 stages: 2 done" in said and "own: 2 of 2 stages to run" in said
    said = call("status", "own")
    assert "3 stages: 2 done, 1 pending" in said
    key = next(line.split()[0] for line in said.splitlines() if "w4a4" in line)
    assert "%  amax w4a4 seed 0" in call("run", key[:6])
    assert "own: all is done" in call("launch", "own.py")
    assert "3 stages: 3 done" in call("status", "own")
    said = call("sync", "own")
    assert "MLflow has all runs of own" in said and "mlflow server" in said and "suite-leaderboard" in said
    rows = json.loads((tmp_path / "runs" / "sweeps" / "own.json").read_text())["stages"]
    assert [row["kind"] for row in rows] == ["Training", "Recipe", "Recipe"]


def test_an_option_of_another_launcher_is_refused_and_one_alone_chooses_its_launcher(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.toml").write_text("minutes = 60\n")
    cluster, runs = ("--cluster", tmp_path / "cluster.toml"), ("--runs", tmp_path / "runs")
    said = refused(capsys, "launch", own, "--on", "here", *cluster, *runs)
    assert "--on here does not take --cluster; there is here: --workers; torchrun: --workers; slurm" in said
    assert "--on slurm does not take --workers" in refused(
        capsys, "launch", own, "--on", "slurm", "--workers", 2, *runs
    )
    assert "no launcher takes --workers and --cluster" in refused(
        capsys, "launch", own, "--workers", 2, *cluster, *runs
    )
    monkeypatch.setenv("PATH", "/nowhere")
    assert "needs a login node of a SLURM cluster" in refused(capsys, "launch", own, *cluster, *runs)


def test_plan_shows_the_processes_of_this_machine(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    assert main(["plan", own, "--on", "here", "--workers", "1", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count(" -m suite run ") == 2
    assert re.search(r"train resnet20 digits .*seed 0: 1 rank, after nothing", said)
    assert said.endswith("2 processes, of 1 rank at a time\n")


def test_what_is_wrong_with_a_launcher_is_said_without_a_plan_above_it(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    (tmp_path / "cluster.toml").write_text("minutes = 'an hour'\n")
    runs = tmp_path / "runs"
    for wrong in (
        ["--cluster", str(tmp_path / "cluster.toml")],
        ["--cluster", "nowhere.toml"],
        ["--workers", "0"],
    ):
        assert main(["plan", own, *wrong, "--runs", str(runs)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("error: ") and not runs.exists(), said


def test_resume_without_a_launch_asks_how(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    assert main(["plan", own, "--runs", str(tmp_path)]) == 0
    said = refused(capsys, "resume", "own", "--runs", tmp_path)
    assert "no launch of own is recorded" in said and "say how to launch it with --on" in said
    record_launched(
        tmp_path, "own", "here", {"workers": 1}, ["the key of a stage before its epochs were changed"]
    )
    assert "nothing that was launched of own is in its plan" in refused(
        capsys, "resume", "own", "--runs", tmp_path
    )


def test_resume_launches_no_stage_that_was_never_launched(
    capsys: pytest.CaptureFixture[str], own: str, tmp_path: Path
) -> None:
    assert main(["plan", own, "--runs", str(tmp_path)]) == 0
    [narrow] = [stage for stage in load_sweep(tmp_path, "own") if "w4a4" in stage.name]
    record_launched(tmp_path, "own", "here", {"workers": 1}, [narrow.key])
    said = refused(capsys, "resume", "own", "--only", "w8a8", "--runs", tmp_path)
    assert "no stage" in said and "w8a8" in said


def test_a_launch_is_remembered_with_its_options_and_all_stages_of_earlier_ones(tmp_path: Path) -> None:
    assert last_launched(tmp_path, "own") is None
    record_launched(tmp_path, "own", "here", {"workers": 2}, ["a", "b"])
    record_launched(tmp_path, "own", "slurm", {"cluster": Path("cluster.toml")}, ["b", "c"])
    options = {"cluster": str(Path("cluster.toml").resolve())}
    assert last_launched(tmp_path, "own") == Launched("slurm", options, ("a", "b", "c"))
    assert last_launched(tmp_path, "other") is None


def test_launches_of_one_sweep_at_the_same_moment_lose_no_stage(tmp_path: Path) -> None:
    keys = [str(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: record_launched(tmp_path, "own", "here", {}, [key]), keys))
    found = last_launched(tmp_path, "own")
    assert found is not None and set(found.keys) == set(keys)
