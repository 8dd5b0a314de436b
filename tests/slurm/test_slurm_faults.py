"""What goes wrong on a cluster, done for real: each cause is recognized, and the remedy is named."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.cluster import CLUSTER, Cluster, Place
from fakes.statuses import status_of
from fakes.waiting import until

from suite.record.journal import read_progress


@pytest.mark.long
def test_a_rank_that_is_killed_ends_the_others_at_once_and_its_recipes_are_cancelled(
    place: Place, cluster: Cluster
) -> None:
    place.launch("--ranks", "2", "--epochs", "1000000")  # which never ends by itself
    [training, *recipes] = place.stages()
    folder = place.runs / training.key
    place.until(lambda: read_progress(folder) is not None)
    os.kill(place.process_of(training, rank=1), signal.SIGKILL)
    cluster.empty()
    assert place.ended(training, "failed")[-1]["cause"] == "code"
    assert [place.state(recipe) for recipe in recipes] == ["pending", "pending"]
    said = place("logs", "own", "--errors")
    assert "1 of 3 runs failed" in said and training.key in said and "code: " in said


def test_a_job_that_is_killed_over_its_memory_is_reported(place: Place, cluster: Cluster) -> None:
    """Before it has come to its journal, with all of its processes; accounting has how much it took."""
    place.settings(CLUSTER.replace("rank = 4.0", "rank = 0.1"))
    place.launch("--only", "train")
    job = place.in_queue("%i")
    cluster.empty()
    said = "memory: killed over its memory; raise memory_gb_per_rank"
    until(lambda: said in place("logs", "own", "--errors"), lambda: place("status", "own"))
    assert "3 stages: 1 failed, 2 pending" in place("status", "own")
    used = cluster(f"sacct --noheader --parsable2 --jobs={job} --format=MaxRSS --noconvert").split()
    assert max(map(int, used)) > 100 << 20


def test_a_disk_that_fills_up_costs_no_saved_state_and_resume_goes_on_from_it(
    place: Place, small_disk: Path, tmp_path: Path, cluster: Cluster
) -> None:
    place.runs.symlink_to(small_disk)
    place.environment["SUITE_SAVE_SECONDS"] = "0"
    training, folder = place.held()
    ballast = place.runs / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(10_000))
    place.release()
    place.comes_to(training, "failed")
    failed = status_of(training, place.runs)
    assert failed.cause == "disk" and "is full; free some space" in failed.error
    assert len(list(folder.glob("resume-*.pt"))) >= 1 and not list(folder.glob("*.writing"))
    cluster.empty()
    ballast.unlink()
    assert "1 of 1 stage sent" in place("resume", "own", "--only", "train", "--cluster", "cluster.toml")
    names = [event["event"] for event in place.ended(training)]
    assert names.count("resumed") == 1
    assert place.equals_one_left_alone(training, tmp_path)


def test_a_controller_that_is_killed_and_started_again_loses_nothing(place: Place, cluster: Cluster) -> None:
    training, _ = place.held()
    kept = cluster.submit("--hold --job-name=kept-over-a-crash", "true")
    cluster.known("kept-over-a-crash")
    cluster.manage("controller-kill")
    try:
        said = place("status", "own", "--only", "train")
        assert "cannot query SLURM, so the state of its jobs is unknown: squeue" in said and "running" in said
        refused = place.attempt("resume", "own", "--cluster", "cluster.toml")
        assert refused.returncode == 2 and "slurmctld does not answer" in refused.stderr
    finally:
        cluster.manage("controller-start")
    assert cluster.state(kept) == "PENDING"
    cluster(f"scontrol release {kept}")
    place.release()
    journal = place.ended(training)
    assert [event["event"] for event in journal].count("started") == 1
    assert "own: all is done" in place("resume", "own", "--only", "train", "--cluster", "cluster.toml")
    cluster.ends(kept, "COMPLETED")


def test_a_folder_that_a_node_cannot_see_is_reported(place: Place, cluster: Cluster) -> None:
    for node in ("n1", "n2", "n3", "n4"):
        init = (cluster.folder / "run" / f"{node}.pid").read_text().strip()
        hide = ["nsenter", "--target", init, "--mount", "--pid", "mount", "-t", "tmpfs", "-o", "ro", "tmpfs"]
        subprocess.run([*hide, str(place.folder)], check=True)
    try:
        place.launch("--only", "train")
        cluster.empty()
        until(lambda: "cannot write into" in place("logs", "own", "--errors"), lambda: place("status", "own"))
        assert "choose a folder that all nodes share with --runs" in place("logs", "own", "--errors")
    finally:
        for node in ("n1", "n2", "n3", "n4"):
            init = (cluster.folder / "run" / f"{node}.pid").read_text().strip()
            subprocess.run(
                ["nsenter", "--target", init, "--mount", "--pid", "umount", str(place.folder)], check=True
            )


def test_a_refusal_says_what_to_do_and_how_much_was_sent(place: Place, cluster: Cluster) -> None:
    place.settings(CLUSTER.replace("rank = 4.0", "rank = 999.0"))
    refused = place.attempt("launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml")
    assert refused.returncode == 2 and "lower memory_gb_per_rank" in refused.stderr
    assert "sent before: 0 jobs" in refused.stderr
    place.settings(CLUSTER)
    cluster("scontrol update partitionname=main state=drain")
    try:
        refused = place.attempt("launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml")
    finally:
        cluster("scontrol update partitionname=main state=up")
    assert refused.returncode == 2 and "sinfo lists them and whether they are up" in refused.stderr


def test_without_accounting_the_queue_and_the_journals_still_tell(place: Place, cluster: Cluster) -> None:
    text = (cluster.folder / "etc" / "slurm.conf").read_text()
    bare = re.sub(r"(?m)^Accounting.*\n", "", text)
    (place.folder / "slurm.conf").write_text(bare)
    shutil.copy(cluster.folder / "etc" / "gres.conf", place.folder)
    place.environment["SLURM_CONF"] = str(place.folder / "slurm.conf")
    place.launch("--only", "train")
    training, _ = place.training()
    place.ended(training)
    assert "keeps no accounting" in place("status", "own")
