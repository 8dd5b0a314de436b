"""Sweeps on a real SLURM of four nodes: sent once, run once, and nothing lost when a node or a launcher dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import CLUSTER, ROOT, SWEEP, Cluster, Place, until

from suite import events, verify
from suite.recipe import plan
from suite.records import standing


def test_a_sweep_is_sent_in_a_moment_runs_and_its_status_says_where(place: Place) -> None:
    said = place.launch("--seeds", "2")
    assert "6 of 6 stages sent in 3 arrays" in said
    again = place.launch("--seeds", "2")
    assert "0 of 6 stages sent in 0 arrays" in again
    assert "queued" in place("status", "own") or "running" in place("status", "own")
    place.all_done()
    until(lambda: place("status", "own").count("COMPLETED") == 6, lambda: place("status", "own"))
    assert "6 stages: 6 done" in place("status", "own")
    [training, *_] = place.stages()
    assert "epoch 1/1  test top-1" in place("logs", training.key[:8])
    record = json.loads((place.runs / training.key / "stage.json").read_text())
    assert (
        record["commit"] == subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    )
    assert "0 of 6 stages sent" in place.launch("--seeds", "2")


def test_a_training_of_eight_ranks_meets_over_two_nodes(place: Place) -> None:
    place.launch("--ranks", "8", "--only", "train")
    [training] = [stage for stage in place.stages() if stage.trains_by]
    until(lambda: place.state(training) == "done", place.logs, 240)
    started = [e for e in events.read(place.runs / training.key) if e["event"] == "started"]
    assert len(started) == 1
    assert "n[" in place("status", "own", "--only", "train"), "two nodes"


def test_a_job_whose_time_is_up_saves_queues_itself_and_ends_with_the_same_weights(
    place: Place, cluster: Cluster, tmp_path: Path
) -> None:
    """The signal that SLURM sends before the limit, here by scancel, to every process of the step."""
    place.launch("--epochs", "40", "--only", "train")
    [training] = [stage for stage in place.stages() if stage.trains_by]
    until(lambda: events.progress(place.runs / training.key) is not None, place.logs, 120)
    [name] = [file.parent.name for file in place.runs.glob("slurm/suite-*/array.json")]
    cluster(f"scancel --signal=USR2 --name={name}")
    until(lambda: place.state(training) == "done", place.logs, 240)
    names = [event["event"] for event in events.read(place.runs / training.key)]
    assert names.count("interrupted") == names.count("resumed") == 1
    from suite.ranks import Ranks
    from suite.run import Folders, run

    run(training, Ranks(), Folders(tmp_path / "alone", tmp_path))
    assert verify.compare(tmp_path / "alone" / training.key, place.runs / training.key) == []


def test_a_job_that_is_cancelled_saves_and_is_not_queued_again(place: Place, cluster: Cluster) -> None:
    place.launch("--epochs", "500", "--only", "train")
    [training] = [stage for stage in place.stages() if stage.trains_by]
    until(lambda: events.progress(place.runs / training.key) is not None, place.logs, 120)
    assert "1 jobs of own cancelled" in place("cancel", "own")
    until(lambda: not cluster("squeue --noheader"), lambda: cluster("squeue"), 60)
    assert events.read(place.runs / training.key)[-1]["event"] == "interrupted"
    assert len(list((place.runs / training.key).glob("resume-*.pt"))) == 1
    until(lambda: "CANCELLED" in place("status", "own"), lambda: place("status", "own"), 30)


def test_a_node_that_loses_its_power_costs_its_job_the_last_minutes_only(
    place: Place, cluster: Cluster
) -> None:
    place.environment["SUITE_SAVE_SECONDS"] = "1"
    place.launch("--epochs", "40", "--only", "train")
    [training] = [stage for stage in place.stages() if stage.trains_by]
    folder = place.runs / training.key
    until(lambda: bool(list(folder.glob("resume-*.pt"))), place.logs, 120)
    node = cluster("squeue --noheader --format=%N")
    cluster.manage("node-kill", node)
    cluster(f"scontrol update nodename={node} state=down reason=test")
    try:
        until(lambda: place.state(training) == "done", place.logs, 240)
    finally:
        cluster.manage("node-start", node)
    happened = events.read(folder)
    assert [event["event"] for event in happened].count("resumed") == 1
    assert {event["host"] for event in happened if event["event"] == "started"} > {node}
    until(cluster.idle, lambda: cluster("sinfo"))


def test_recipes_of_a_failing_training_are_cancelled_and_resume_sends_what_is_missing(
    place: Place, cluster: Cluster
) -> None:
    place.launch("--lr", "1e18")
    training, *recipes = place.stages()
    until(lambda: place.state(training) == "failed", place.logs, 120)
    until(lambda: not cluster("squeue --noheader"), lambda: cluster("squeue"), 60)
    assert {place.state(recipe) for recipe in recipes} == {"pending"}
    assert "became inf or NaN" in standing(training, place.runs).error

    def told() -> bool:  # the accounting is some seconds behind the queue
        said = place("status", "own")
        return "FAILED" in said and "CANCELLED" in said

    until(told, lambda: place("status", "own"), 30)
    said = place("resume", "own", "--cluster", "cluster.toml")
    assert "3 of 3 stages sent" in said


def test_a_slice_of_recipes_can_be_cancelled_from_jobs_whose_others_go_on(place: Place) -> None:
    (place.folder / "own.py").write_text(SWEEP.replace("(8, 4)", "(8, 7, 6, 5, 4, 3)"))
    place.launch("--epochs", "20")
    said = place("cancel", "own", "--only", "amax w8a8")
    assert "0 jobs of own cancelled, and 1 stages of jobs that go on with others" in said
    [cancelled] = [stage for stage in place.stages() if "w8a8" in stage.name]
    others = [stage for stage in place.stages() if stage != cancelled]
    until(lambda: {place.state(stage) for stage in others} == {"done"}, place.logs, 240)
    assert [event["event"] for event in events.read(place.runs / cancelled.key)] == ["cancelled"]
    until(lambda: not place.queue(), place.queue)
    assert "1 of 7 stages sent" in place("resume", "own", "--cluster", "cluster.toml")
    until(lambda: place.state(cancelled) == "done", place.logs, 120)


HELD = CLUSTER + 'setup = ["sleep 600"]\n'
KILLED = """
import os, sys
from slurm import clusters, launch
left = int(os.environ["CALLS"])
def count(function):
    def counted(*words, **named):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        result = function(*words, **named)
        left -= 1
        if left < 0:
            os._exit(9)
        return result
    return counted
clusters.ask = count(clusters.ask)
launch.write_json = count(launch.write_json)
from suite.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_launcher_killed_before_or_after_any_of_its_steps_sends_each_stage_once(
    tmp_path: Path, cluster: Cluster
) -> None:
    """Its steps are what it asks SLURM and what it writes down. Each jobs' stages are counted in SLURM's queue."""
    place = Place(tmp_path, cluster, HELD)
    words = ("launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml", "--seeds", "2")
    killed, sizes = 0, set()
    try:
        for calls in range(int(time.time()) % 4, 60, 4):  # a fourth of them, others each time
            shutil.rmtree(place.runs, ignore_errors=True)
            place.environment["CALLS"] = str(calls)
            first = place.attempt(*words, program=KILLED)
            if first.returncode == 0:
                break
            assert first.returncode == 9, first.stdout + first.stderr
            killed += 1
            place.launch("--seeds", "2")
            sizes.add(len(cluster("squeue --noheader --array").splitlines()))
            cluster("scancel --user=root")
            until(lambda: not cluster("squeue --noheader"), lambda: cluster("squeue"))
        assert killed >= 4 and sizes == {6}
    finally:
        cluster("scancel --user=root")


def test_two_launchers_at_once_send_each_stage_once(tmp_path: Path, cluster: Cluster) -> None:
    place = Place(tmp_path, cluster, HELD)
    words = ["launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml", "--seeds", "3"]
    command = [sys.executable, "-m", "suite", *words]
    try:
        both = [
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=place.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(2)
        ]
        said = sorted(process.communicate(timeout=120)[0] for process in both)
        assert said[0].startswith("own: 0 of 9 stages sent") and said[1].startswith(
            "own: 9 of 9 stages sent"
        ), said
        assert len(cluster("squeue --noheader --array").splitlines()) == 9
        assert "3 jobs of own cancelled" in place("cancel", "own", "--only", "train")
        until(lambda: not cluster("squeue --noheader"), lambda: cluster("squeue"), 60)
    finally:
        cluster("scancel --user=root")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ('partition = "gpu"', "there is no partition 'gpu'; there is high, low, main, short"),
        ('partition = "short"\nminutes = 20', "minutes 20 is over partition short's limit of 10"),
        (
            "gpus_per_node = 8\nranks_per_node = 8",
            "gpus_per_node 8 is more than the 4 that a node of main has",
        ),
        ("minutes = 3", "minutes 3 leaves a job no time before it is told to save"),
        ("[retries]\ncolour = 1", "retries: 'colour' is unknown; there is time, preempted"),
        ("colour = 1", "'colour' is unknown; there is account,"),
        ("minutes = ", "is not TOML"),
        ("ranks_per_node = 1", "a stage takes 8 nodes, and partition main has 4"),
    ],
)
def test_what_the_cluster_would_refuse_is_said_before_anything_is_sent(
    settings: str, complaint: str, tmp_path: Path, cluster: Cluster
) -> None:
    place = Place(tmp_path, cluster, settings + "\n")
    for words in (["launch", "own.py", "--on", "slurm"], ["plan", "own.py"]):
        done = place.attempt(*words, "--cluster", "cluster.toml", "--ranks", "8")
        assert done.returncode == 2 and complaint in " ".join(done.stderr.split()), done.stdout + done.stderr
    assert not cluster("squeue --noheader")


@pytest.mark.parametrize(
    ("identity", "tasks"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("5_[0-2,7]", ["5_0", "5_1", "5_2", "5_7"]),
        ("6_[0-6:3]", ["6_0", "6_3", "6_6"]),
        ("12_[0-1,7%4]", ["12_0", "12_1", "12_7"]),
        ("5_[0-1,...,48-50...]", ["5_0", "5_1"]),
    ],
)
def test_the_short_forms_of_arrays_are_read(identity: str, tasks: list[str]) -> None:
    from slurm.clusters import expanded

    assert expanded(identity) == tasks


def test_without_slurm_the_remedy_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"}
    command = [sys.executable, "-m", "suite", "launch", "own.py", "--on", "slurm"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "there is no sinfo on this machine" in done.stderr


def test_the_scripts_that_are_sent(tmp_path: Path) -> None:
    """Golden: two trainings of two nodes in one array, their recipes after each. `UPDATE=1` writes it anew."""
    from slurm import clusters
    from slurm.launch import Slurm
    from suite import sweeps
    from suite.run import Folders

    golden = ROOT / "tests" / "golden" / "sbatch.txt"
    (tmp_path / "own.py").write_text(SWEEP)
    (tmp_path / "runs" / "slurm").mkdir(parents=True)
    (tmp_path / "runs" / "slurm" / "owner").write_text('"golden"')
    (tmp_path / "cluster.toml").write_text(
        CLUSTER + 'partition = "gpu"\naccount = "lab"\nsetup = ["module load cuda"]\n'
        '[environment]\nHTTPS_PROXY = "http://proxy:3128"\n'
    )
    cluster = clusters.read(tmp_path / "cluster.toml")
    listed, _ = sweeps.find(str(tmp_path / "own.py")).stages(["--ranks", "8", "--seeds", "2"])
    planned = Slurm(Folders(tmp_path / "runs", tmp_path / "data"), cluster).planned(plan(listed), 1001)
    text = re.sub(r"/code/\w+", "/code/DIGEST", "\n".join(text for _, text in planned))
    text = text.replace(str(tmp_path), "/PLACE").replace(sys.executable, "/PYTHON")
    if os.environ.get("UPDATE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
