"""What goes wrong on a cluster, done for real: each cause is told apart, and costs what it must and no more."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes.cluster import CLUSTER, Cluster, Place
from fakes.image_files import write as write_imagenet
from fakes.waiting import until

from suite.launch import verify_resume
from suite.recipe import Stage
from suite.record.journal import read_events, read_progress
from suite.record.status import status_of


def held(place: Place, *words: str) -> tuple[Stage, Path]:
    """A training of 18 steps that waits in the middle of them, and its run directory."""
    place.hold()
    place.launch("--only", "train", "--epochs", "3", *words)
    place.until(place.is_held)
    return place.training()


def ended(place: Place, training: Stage, state: str = "done") -> list[dict[str, Any]]:
    """What its journal has when the training has come to `state`, and to no other for good."""
    place.comes_to(training, state)
    return read_events(place.runs / training.key)


def turns(place: Place) -> list[str]:
    """The cause of each turn's end, of the one array there is."""
    from slurm.attempts import Task

    [record] = place.runs.glob("slurm/suite-*/array.json")
    return [turn.cause for turn in Task(record, 0, place.runs).turns]


def equal_to_one_that_was_left_alone(place: Place, training: Stage, folder: Path) -> bool:
    from suite.process.ranks import Ranks
    from suite.run.stage import Folders, run

    run(training, Ranks(), Folders(folder / "alone", folder / "data"))
    return verify_resume.compare(folder / "alone" / training.key, place.runs / training.key) == []


@pytest.fixture(params=["the signal it asked for", "SIGTERM"])
def warning(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """How the cluster warns of a preemption; by SIGTERM unless slurm.conf says otherwise."""
    conf = cluster.folder / "etc" / "slurm.conf"
    text = conf.read_text()
    if request.param == "SIGTERM":
        conf.write_text(text.replace("SlurmctldParameters=preempt_send_user_signal\n", ""))
        cluster("scontrol reconfigure")
    yield request.param
    conf.write_text(text)
    cluster("scontrol reconfigure")


def test_a_preempted_training_saves_waits_for_the_other_job_and_goes_on(
    place: Place, cluster: Cluster, warning: str
) -> None:
    place.settings(CLUSTER + 'partition = "low"\n')
    training, _ = held(place)
    node = cluster("squeue --noheader --partition=low --format=%N")
    high = cluster.submit(f"--partition=high --nodelist={node} --exclusive", "sleep 1")
    journal = ended(place, training)
    cluster.ends(high, "COMPLETED")
    asked = [event["signal"] for event in journal if event["event"] == "interrupted"]
    assert asked == ["SIGTERM" if warning == "SIGTERM" else "SIGUSR2"]
    assert [event["event"] for event in journal].count("resumed") == 1
    assert turns(place) == ["preempted", ""]


def test_a_rank_that_is_killed_ends_the_others_at_once_and_its_recipes_are_cancelled(
    place: Place, cluster: Cluster
) -> None:
    place.launch("--ranks", "2", "--epochs", "10000")  # which never ends by itself
    [training, *recipes] = place.stages()
    folder = place.runs / training.key
    place.until(lambda: read_progress(folder) is not None)
    os.kill(place.process_of(training, rank=1), signal.SIGKILL)
    cluster.empty()
    assert ended(place, training, "failed")[-1]["cause"] == "code"
    assert [place.state(recipe) for recipe in recipes] == ["pending", "pending"]
    said = place("logs", "own", "--errors")
    assert "1 of 3 runs failed" in said and training.key in said and "code: " in said


def test_a_job_that_is_killed_over_its_memory_is_told_so(place: Place, cluster: Cluster) -> None:
    """Before it has come to its journal, with all of its processes; accounting has how much it took."""
    place.settings(CLUSTER.replace("rank = 4.0", "rank = 0.1"))
    place.launch("--only", "train")
    job = cluster("squeue --noheader --format=%i")
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
    training, folder = held(place)
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
    assert "1 of 1 stages sent" in place("resume", "own", "--only", "train", "--cluster", "cluster.toml")
    names = [event["event"] for event in ended(place, training)]
    assert names.count("resumed") == 1
    assert equal_to_one_that_was_left_alone(place, training, tmp_path)


def test_what_goes_on_on_a_lost_node_is_fenced_off_and_the_node_avoided(
    place: Place, cluster: Cluster, tmp_path: Path
) -> None:
    """Only the slurmd is killed: the training goes on beside the one that SLURM starts anew elsewhere."""
    place.environment["SUITE_SAVE_SECONDS"] = "0"
    training, folder = held(place)
    node = cluster("squeue --noheader --format=%N")
    orphan = place.process_of(training)
    lease = (folder / "lease").read_text()
    cluster.manage("slurmd-kill", node)
    cluster.lose(node)
    place.until(lambda: (folder / "lease").read_text() != lease)
    assert Path(f"/proc/{orphan}").exists(), "it still is in the training"
    place.release()
    until(lambda: not Path(f"/proc/{orphan}").exists(), place.logs)
    cluster.manage("slurmd-start", node)
    cluster(f"scontrol update nodename={node} state=resume")
    journal = ended(place, training)
    hosts = [event["host"] for event in journal if event["event"] == "started"]
    assert hosts[0] == node and len(set(hosts)) == len(hosts) == 2
    assert [event["event"] for event in journal].count("resumed") == 1
    assert turns(place) == ["node", ""] and "was taken over by" in place("logs", training.key)
    assert equal_to_one_that_was_left_alone(place, training, tmp_path)
    cluster("scontrol update partitionname=main state=down")  # the next one need not run
    try:
        place.launch("--epochs", "3", "--seeds", "2", "--only", "train*seed 1")
    finally:
        cluster("scancel --user=root")
        cluster("scontrol update partitionname=main state=up")
    texts = [file.read_text() for file in place.runs.glob("slurm/suite-*/sbatch.sh")]
    assert [f"#SBATCH --exclude={node}\n" in text for text in sorted(texts, key=len)] == [False, True]


BROKEN = """
sound = evaluate

def evaluate(*words):
    if "SLURM_RESTART_COUNT" not in os.environ:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
    return sound(*words)
"""


def test_a_job_that_finds_its_gpu_broken_goes_on_on_another_node(place: Place) -> None:
    place.change(BROKEN)
    place.launch("--only", "train")
    training, _ = place.training()
    journal = ended(place, training)
    hosts = [event["host"] for event in journal if event["event"] == "started"]
    assert len(set(hosts)) == 2 and turns(place) == ["node", ""]


def test_a_training_that_gets_no_memory_has_one_more_turn(place: Place) -> None:
    place.change("import resource\nresource.setrlimit(resource.RLIMIT_AS, (1_250_000_000, 1_250_000_000))\n")
    place.launch("--only", "train", "--batch", "1198", "--size", "32")
    training, _ = place.training()
    place.until(lambda: turns(place) == ["memory", "memory"])
    assert ended(place, training, "failed")[-1]["cause"] == "memory"


def test_a_job_that_twice_gains_nothing_has_no_third_turn_whatever_its_budget(
    place: Place, cluster: Cluster
) -> None:
    place.settings(CLUSTER + "[retries]\ncode = 5\n")
    place.launch("--epochs", "10000", "--only", "train")
    training, folder = place.training()
    for attempt in (1, 2):

        def works(attempt: int = attempt) -> bool:
            started = [event["event"] for event in read_events(folder)].count("started")
            return started == attempt and read_progress(folder) is not None

        place.until(works)
        os.kill(place.process_of(training), signal.SIGKILL)
    journal = ended(place, training, "failed")
    assert "without a word" in journal[-1]["error"] and turns(place) == ["code", "code"]
    cluster.empty()


def test_a_controller_that_is_killed_and_started_again_loses_nothing(place: Place, cluster: Cluster) -> None:
    training, _ = held(place)
    kept = cluster.submit("--hold --job-name=kept-over-a-crash", "true")
    cluster.known("kept-over-a-crash")
    cluster.manage("controller-kill")
    try:
        said = place("status", "own", "--only", "train")
        assert "how the jobs are is not known: squeue" in said and "running" in said
        refused = place.attempt("resume", "own", "--cluster", "cluster.toml")
        assert refused.returncode == 2 and "slurmctld does not answer" in refused.stderr
    finally:
        cluster.manage("controller-start")
    assert cluster.state(kept) == "PENDING"
    cluster(f"scontrol release {kept}")
    place.release()
    journal = ended(place, training)
    assert [event["event"] for event in journal].count("started") == 1
    assert "own: all is done" in place("resume", "own", "--only", "train", "--cluster", "cluster.toml")
    cluster.ends(kept, "COMPLETED")


@pytest.mark.long
def test_a_time_limit_that_is_reached_costs_nothing(place: Place, cluster: Cluster, tmp_path: Path) -> None:
    """SLURM warns at its next look, once the limit of the running job is a minute."""
    training, _ = held(place)
    job = cluster("squeue --noheader --format=%i")
    cluster(f"scontrol update jobid={job} timelimit=1")
    place.until(lambda: turns(place) == ["time"], 120)  # SLURM looks every 30 s
    cluster(f"scontrol update jobid={job} timelimit=60")
    names = [event["event"] for event in ended(place, training)]
    assert names.count("interrupted") == names.count("resumed") == 1 and turns(place) == ["time", ""]
    assert equal_to_one_that_was_left_alone(place, training, tmp_path)


def descendants(process: int) -> list[str]:
    """All processes that one has started, and those that they have."""
    found = subprocess.run(["pgrep", "--parent", str(process)], capture_output=True, text=True).stdout.split()
    return found + [other for child in found for other in descendants(int(child))]


IMAGENET = """
from suite.methods.amax import Amax
from suite.recipe import IMAGENET_MEAN, IMAGENET_STD, Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(epochs: int = 3):
    sgd = Sgd(epochs=epochs, batch=2, lr=1e-3, crop="resized", precision=Precision("O0"))
    dataset = Dataset("imagenet", IMAGENET_MEAN, IMAGENET_STD, size=32)
    return [Recipe(Training(Network("resnet20", classes=3), dataset, sgd), Amax(8, 8))]
"""


def test_a_signal_to_a_step_with_eight_data_workers_makes_one_save_and_one_further_turn(
    place: Place, tmp_path: Path, cluster: Cluster
) -> None:
    """As SLURM sends it before the time limit, to every process of the step; and the weights in the end are equal."""
    (place.folder / "own.py").write_text(IMAGENET)
    write_imagenet(place.folder / "data")
    place.environment["SUITE_DATA_WORKERS"] = "8"
    training, _ = held(place, "--data", "data")
    workers = descendants(place.process_of(training))
    cluster("scancel --signal=USR2 --user=root")
    names = [event["event"] for event in ended(place, training)]
    assert names.count("interrupted") == names.count("resumed") == 1
    assert turns(place) == ["time", ""] and len(workers) >= 8
    assert equal_to_one_that_was_left_alone(place, training, tmp_path)


def test_a_folder_that_a_node_cannot_see_is_told(place: Place, cluster: Cluster) -> None:
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
    assert "0 jobs were sent before" in refused.stderr
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
    ended(place, training)
    assert "keeps no accounting" in place("status", "own")
