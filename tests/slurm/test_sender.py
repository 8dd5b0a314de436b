"""Each stage is sent to SLURM exactly once, whenever a launcher is killed and however many there are."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator

import pytest
from fakes.cluster import Cluster, Place


@pytest.fixture
def waiting(cluster: Cluster) -> Iterator[None]:
    """What is sent waits in the queue, and can be ended at once."""
    cluster("scontrol update partitionname=main state=down")
    yield
    cluster("scancel --user=root")
    cluster("scontrol update partitionname=main state=up")


KILLED = """
import os, sys
from slurm import arrays, client, cluster, sender
left = calls = int(os.environ["CALLS"])
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
client.ask = cluster.ask = count(client.ask)
sender.write_json = count(sender.write_json)
arrays.write_sealed_json = count(arrays.write_sealed_json)
from suite.__main__ import main
status = main(sys.argv[1:])
print(calls - left, file=open("steps", "w"))
sys.exit(status)
"""


def killed_at(place: Place, calls: int) -> bool:
    """Whether a launcher is killed before or after that many of its steps, and the next one sends what it had not."""
    shutil.rmtree(place.runs, ignore_errors=True)
    place.environment["CALLS"] = str(calls)
    words = ("launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml", "--seeds", "2")
    first = place.attempt(*words, program=KILLED)
    if first.returncode == 9:
        place.launch("--seeds", "2")
    else:
        assert first.returncode == 0, first.stdout + first.stderr
    assert len(place.cluster.queue().splitlines()) == 6, calls
    place.cluster("scancel --user=root")
    place.cluster.empty()
    return first.returncode == 9


def steps(place: Place) -> int:
    """How many there were before and after which the last launcher, which was not killed, could have been."""
    return int((place.folder / "steps").read_text())


@pytest.mark.usefixtures("waiting")
def test_a_launcher_killed_before_or_after_some_of_its_steps_sends_each_stage_once(place: Place) -> None:
    """Its steps are what it asks SLURM and what it writes down. Each jobs' stages are counted in SLURM's queue."""
    assert not killed_at(place, 10**6)
    tried = random.sample(range(steps(place)), 2)  # others each time
    assert [calls for calls in tried if not killed_at(place, calls)] == []


@pytest.mark.long
@pytest.mark.usefixtures("waiting")
def test_a_launcher_killed_before_or_after_any_of_its_steps_sends_each_stage_once(place: Place) -> None:
    killed = 0
    while killed_at(place, killed):
        killed += 1
    assert killed == steps(place) > 20


@pytest.mark.usefixtures("waiting")
def test_two_launchers_at_once_send_each_stage_once(place: Place, cluster: Cluster) -> None:
    words = ("launch", "own.py", "--on", "slurm", "--cluster", "cluster.toml", "--seeds", "3")
    both = [place.start(*words) for _ in range(2)]
    said = sorted(process.communicate()[0] for process in both)
    assert "own: 0 of 9 stages sent" in said[0], said
    assert "own: 9 of 9 stages sent" in said[1], said
    assert len(cluster.queue().splitlines()) == 9
    assert "3 jobs of own cancelled" in place("cancel", "own", "--only", "train")
    cluster(
        "scontrol update partitionname=main state=up"
    )  # in one that is down no job's dependency is looked at
    cluster.empty()
