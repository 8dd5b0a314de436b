"""Sweeps on a real SLURM of four nodes: sent, run, cancelled, and nothing lost when a node dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ROOT
from fakes.cluster import CLUSTER, Cluster, Place
from fakes.statuses import status_of
from fakes.user import SWEEP
from fakes.waiting import limit, until

from suite.record.journal import read_events

TABLES = """
[recipe]
minutes = 20
[sbatch]
comment = "tried here"
mem = false
[srun]
cpu-bind = "none"
"""


def test_a_sweep_is_sent_in_a_moment_runs_and_its_status_says_where(place: Place, cluster: Cluster) -> None:
    place.settings(CLUSTER + TABLES)
    words = ("launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml")
    said, _ = place.start(*words).communicate()
    assert "3 of 3 stages sent in 2 arrays" in said
    asked = {line.split("|")[1].strip() for line in cluster("squeue --noheader --format=%k|%l").splitlines()}
    assert asked <= {"1:00:00", "20:00"} and "20:00" in asked, "the recipes wait for their trainings"
    assert "0 of 3 stages sent in 0 arrays" in place.launch()
    assert "queued" in place("status", "own") or "running" in place("status", "own")
    place.all_done()
    cluster.empty()
    until(lambda: place("status", "own").count("COMPLETED") == 3, lambda: place("status", "own"))
    assert "3 stages: 3 done" in place("status", "own")
    [training, *_] = place.stages()
    assert "epoch 1/1  test top-1" in place("logs", training.key[:8])
    record = json.loads((place.runs / training.key / "stage.json").read_text())
    assert (
        record["commit"] == subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    )
    assert "own: all is done" in place.launch()


@pytest.mark.long  # tests/slurm/test_own_files.py has four ranks on four nodes
@pytest.mark.parametrize(("ranks", "on_a_node"), [(4, 2), (8, 4)], ids=["4", "8"])
def test_the_ranks_of_a_training_meet_over_two_nodes(place: Place, ranks: int, on_a_node: int) -> None:
    place.settings(CLUSTER + f"ranks_per_node = {on_a_node}\n")
    place.launch("--ranks", str(ranks), "--only", "train")
    training, folder = place.training()
    place.comes_to(training)
    started = [e for e in read_events(folder) if e["event"] == "started"]
    assert len(started) == 1
    assert "n[" in place("status", "own", "--only", "train"), "two nodes"


@pytest.mark.long
def test_a_job_that_is_cancelled_saves_and_is_not_queued_again(place: Place, cluster: Cluster) -> None:
    _, folder = place.held()
    assert "1 job of own cancelled" in place("cancel", "own")
    cluster.empty()
    assert read_events(folder)[-1]["event"] == "interrupted"
    assert len(list(folder.glob("resume-*.pt"))) == 1
    until(lambda: "CANCELLED" in place("status", "own"), lambda: place("status", "own"))


@pytest.mark.long
def test_a_node_that_loses_its_power_costs_its_job_the_last_minutes_only(
    place: Place, cluster: Cluster
) -> None:
    place.environment["SUITE_SAVE_SECONDS"] = "0"
    training, folder = place.held()
    node = place.in_queue("%N")
    job = place.in_queue("%i")
    cluster.manage("node-kill", node)
    place.release()
    cluster.lose(node)
    place.comes_to(training)
    cluster.manage("node-start", node)
    cluster.ends(job, "NODE_FAIL", "COMPLETED")
    happened = read_events(folder)
    assert [event["event"] for event in happened].count("resumed") == 1
    assert {event["host"] for event in happened if event["event"] == "started"} > {node}
    until(cluster.idle, lambda: cluster("sinfo"))


def test_recipes_of_a_failing_training_are_cancelled_and_resume_sends_what_is_missing(
    place: Place, cluster: Cluster
) -> None:
    place.launch("--lr", "1e18")
    training, *recipes = place.stages()
    place.comes_to(training, "failed")
    cluster.empty()
    assert {place.state(recipe) for recipe in recipes} == {"pending"}
    assert "became inf or NaN" in status_of(training, place.runs).error

    def recorded() -> bool:  # the accounting is some seconds behind the queue
        said = place("status", "own")
        return "FAILED" in said and "CANCELLED" in said

    until(recorded, lambda: place("status", "own"))
    cluster("scontrol update partitionname=main state=down")  # what is sent stays in the queue
    try:
        said = place("resume", "own", "--cluster", "cluster.toml")
        assert "3 of 3 stages sent" in said
    finally:
        cluster("scancel --user=root")
        cluster("scontrol update partitionname=main state=up")


def test_a_slice_of_recipes_can_be_cancelled_from_jobs_whose_others_go_on(
    place: Place, cluster: Cluster
) -> None:
    own = place.folder / "own.py"
    own.write_text(own.read_text().replace("(8, 4)", "(8, 7, 6, 5, 4, 3)"))
    cluster("scontrol update partitionname=main state=down")  # so that none has begun
    try:
        place.launch()
        said = place("cancel", "own", "--only", "amax w8a8")
    finally:
        cluster("scontrol update partitionname=main state=up")
    assert "0 jobs of own cancelled, and 1 stage of jobs that go on with others" in said
    [cancelled] = [stage for stage in place.stages() if "w8a8" in stage.name]
    others = [stage for stage in place.stages() if stage != cancelled]
    place.until(lambda: {place.state(stage) for stage in others} == {"done"})
    assert [event["event"] for event in read_events(place.runs / cancelled.key)] == ["cancelled"]
    cluster.empty()
    assert "1 of 7 stages sent" in place("resume", "own", "--cluster", "cluster.toml")
    place.comes_to(cancelled)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ('partition = "gpu"', "there is no partition 'gpu'; there is high, low, main, short"),
        ('partition = "short"\nminutes = 20', "minutes 20 is over partition short's limit of 10"),
        (
            "gpus_per_node = 8\nranks_per_node = 8",
            "gpus_per_node 8 is more than the 4 that a node of main has",
        ),
        ("minutes = 3", "line 1: minutes leaves a job no time: of its minutes (3) it is asked to save"),
        ("[retries]\ncolour = 1", "line 2: retries.colour is unknown; there is time, preempted"),
        ("colour = 1", "line 1: colour is unknown; there is account,"),
        ("minutes = ", "is not TOML"),
        ("ranks_per_node = 1", "a stage takes 8 nodes, and partition main has 4"),
    ],
)
def test_what_the_cluster_would_refuse_is_said_before_anything_is_sent(
    settings: str, complaint: str, place: Place, cluster: Cluster
) -> None:
    place.settings(settings + "\n")
    for words in (["launch", "own.py", "--on", "slurm"], ["plan", "own.py"]):
        done = place.attempt(*words, "--cluster", "cluster.toml", "--ranks", "8")
        assert done.returncode == 2 and complaint in " ".join(done.stderr.split()), done.stdout + done.stderr
    assert not cluster.queue()


def test_without_slurm_the_remedy_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"}
    command = [sys.executable, "-m", "suite", "launch", "own.py", "--on", "slurm"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=limit(60)
    )
    assert done.returncode == 2 and "there is no sinfo on this machine" in done.stderr
