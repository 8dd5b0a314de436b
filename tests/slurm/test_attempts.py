"""A job's attempts on a real SLURM: each ends by the right cause, and the next goes on from what was saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fakes.cluster import CLUSTER, Cluster, Place
from fakes.image_files import write as write_imagenet
from fakes.waiting import until

from suite.record.journal import read_events, read_progress


@pytest.fixture(params=["the signal it asked for", pytest.param("SIGTERM", marks=pytest.mark.long)])
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
    training, _ = place.held()
    node = place.in_queue("%N")
    high = cluster.submit(f"--partition=high --nodelist={node} --exclusive", "sleep 1")
    journal = place.ended(training)
    cluster.ends(high, "COMPLETED")
    asked = [event["signal"] for event in journal if event["event"] == "interrupted"]
    assert asked == ["SIGTERM" if warning == "SIGTERM" else "SIGUSR2"]
    assert [event["event"] for event in journal].count("resumed") == 1
    assert place.causes() == ["preempted", ""]


def test_what_goes_on_on_a_lost_node_is_fenced_off_and_the_node_avoided(
    place: Place, cluster: Cluster, tmp_path: Path
) -> None:
    """Only the slurmd is killed: the training goes on beside the one that SLURM starts anew elsewhere."""
    place.environment["SUITE_SAVE_SECONDS"] = "0"
    training, folder = place.held()
    node = place.in_queue("%N")
    orphan = place.process_of(training)
    lease = (folder / "lease").read_text()
    cluster.manage("slurmd-kill", node)
    cluster.lose(node)
    place.until(lambda: (folder / "lease").read_text() != lease)
    assert psutil.pid_exists(orphan), "it still is in the training"
    place.release()
    until(lambda: not psutil.pid_exists(orphan), place.logs)
    cluster.takes_up(node)
    journal = place.ended(training)
    hosts = [event["host"] for event in journal if event["event"] == "started"]
    assert hosts[0] == node and len(set(hosts)) == len(hosts) == 2
    assert [event["event"] for event in journal].count("resumed") == 1
    assert place.causes() == ["node", ""] and "was taken over by" in place("logs", training.key)
    assert place.equals_one_left_alone(training, tmp_path)
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


@pytest.mark.long  # a lost node's job goes on on another one above
def test_a_job_that_finds_its_gpu_broken_goes_on_on_another_node_whatever_setup_does(place: Place) -> None:
    place.settings(CLUSTER + """setup = ["set -euo pipefail", "trap 'exit 0' EXIT", "false || true"]\n""")
    place.change(BROKEN)
    place.launch("--only", "train")
    training, _ = place.training()
    journal = place.ended(training)
    hosts = [event["host"] for event in journal if event["event"] == "started"]
    assert len(set(hosts)) == 2 and place.causes() == ["node", ""]


LARGE = ("--network", "resnet20", "--images", "digits")


@pytest.mark.long
def test_a_training_that_gets_no_memory_has_one_more_attempt(place: Place) -> None:
    place.change("import resource\nresource.setrlimit(resource.RLIMIT_AS, (1_250_000_000, 1_250_000_000))\n")
    place.launch("--only", "train", "--batch", "1198", "--size", "32", *LARGE)
    training, _ = place.training()
    place.until(lambda: place.causes() == ["memory", "memory"])
    assert place.ended(training, "failed")[-1]["cause"] == "memory"


def test_a_job_that_makes_no_progress_twice_has_no_third_attempt_whatever_its_budget(
    place: Place, cluster: Cluster
) -> None:
    place.settings(CLUSTER + "[retries]\ncode = 5\n")
    place.launch("--epochs", "1000000", "--only", "train")
    training, folder = place.training()
    for attempt in (1, 2):

        def works(attempt: int = attempt) -> bool:
            started = [event["event"] for event in read_events(folder)].count("started")
            return started == attempt and read_progress(folder) is not None

        place.until(works)
        os.kill(place.process_of(training), signal.SIGKILL)
    journal = place.ended(training, "failed")
    assert "recorded no error" in journal[-1]["error"] and place.causes() == ["code", "code"]
    cluster.empty()


@pytest.mark.long
def test_a_time_limit_that_is_reached_costs_nothing(place: Place, cluster: Cluster, tmp_path: Path) -> None:
    """SLURM warns at its next check, once the limit of the running job is a minute."""
    training, _ = place.held()
    job = place.in_queue("%i")
    cluster(f"scontrol update jobid={job} timelimit=1")
    place.until(lambda: place.causes() == ["time"], 120)  # SLURM checks every 30 s
    cluster(f"scontrol update jobid={job} timelimit=60")
    names = [event["event"] for event in place.ended(training)]
    assert names.count("interrupted") == names.count("resumed") == 1 and place.causes() == ["time", ""]
    assert place.equals_one_left_alone(training, tmp_path)


IMAGENET = """
from suite.methods.amax import Amax
from suite.recipe import IMAGENET_MEAN, IMAGENET_STD, Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(epochs: int = 3):
    sgd = Sgd(epochs=epochs, batch=2, lr=1e-3, crop="resized", precision=Precision("O0"))
    dataset = Dataset("imagenet", IMAGENET_MEAN, IMAGENET_STD, size=32)
    return [Recipe(Training(Network("resnet20", classes=3), dataset, sgd), Amax(8, 8))]
"""


@pytest.mark.long
def test_a_signal_to_a_step_with_eight_data_workers_makes_one_save_and_one_further_attempt(
    place: Place, tmp_path: Path, cluster: Cluster
) -> None:
    """As SLURM sends it before the time limit, to every process of the step; and the weights in the end are equal."""
    (place.folder / "own.py").write_text(IMAGENET)
    write_imagenet(place.folder / "data")
    place.environment["SUITE_DATA_WORKERS"] = "8"
    training, _ = place.held("--data", "data")
    workers = psutil.Process(place.process_of(training)).children(recursive=True)
    cluster("scancel --signal=USR2 --user=root")
    names = [event["event"] for event in place.ended(training)]
    assert names.count("interrupted") == names.count("resumed") == 1
    assert place.causes() == ["time", ""] and len(workers) >= 8
    assert place.equals_one_left_alone(training, tmp_path)
