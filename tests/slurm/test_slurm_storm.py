"""A sweep of 24 runs over four nodes while two of them lose their power and the controller is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fakes.cluster import CLUSTER, Cluster, Place, nodes_at_work
from fakes.waiting import limit

from suite.record.journal import read_events

PARTS = (("started", 1), ("resumed", 0))


def lose_power(cluster: Cluster, node: str) -> None:
    cluster.manage("node-kill", node)
    cluster.lose(node)


def storm(place: Place, cluster: Cluster, happened: Callable[[str], None]) -> None:
    """Two nodes lose their power and the controller is killed while the trainings run; then all comes to its end."""
    first, second = nodes_at_work(cluster)[:2]
    lose_power(cluster, first)
    happened(f"{first} loses its power")
    cluster.known("suite-")
    cluster.manage("controller-kill")
    happened("the controller is killed")
    cluster.manage("controller-start")
    happened("the controller is started again")
    lose_power(cluster, second)
    happened(f"{second} loses its power")
    assert "0 of 24 stages sent" in place("resume", "own", "--cluster", "cluster.toml")
    cluster.manage("node-start", first)
    happened(f"{first} is started again")
    place.all_done()
    happened("all is done: " + place("status", "own").splitlines()[-1])
    cluster.manage("node-start", second)
    cluster.empty()


def tables(place: Place, options: Sequence[str]) -> list[Path]:
    """The table of the runs on the cluster, and that of the same on this machine alone."""
    launch = ["suite", "launch", "own.py", *options, "--on", "here", "--runs", "quiet"]
    quiet = ["analysis", "own", "--runs", "quiet", "--out", "quiet-results"]
    for words in (launch, quiet, ["analysis", "own", "--out", "results"]):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=place.folder,
            env={**place.environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=limit(400),
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return [next(place.folder.glob(f"{folder}/**/table.md")) for folder in ("results", "quiet-results")]


@pytest.mark.long
def test_all_runs_end_once_and_their_tables_are_those_of_a_quiet_machine(
    place: Place, cluster: Cluster
) -> None:
    """Two jobs fit on a node, so that the eight trainings are on all four."""
    place.settings(CLUSTER.replace("rank = 4.0", "rank = 30.0"))
    place.environment["SUITE_SAVE_SECONDS"] = "1"
    options = ("--seeds", "8", "--epochs", "3")
    began, story = time.monotonic(), list[str]()

    def happened(what: str) -> None:
        story.append(f"{time.monotonic() - began:5.0f} s  {what}")

    happened(place.launch(*options).splitlines()[0])
    stages = place.stages()
    assert len(stages) == 24
    place.until(lambda: bool(list(place.runs.glob("*/resume-*.pt"))))
    storm(place, cluster, happened)

    journals = [[event["event"] for event in read_events(place.runs / stage.key)] for stage in stages]
    assert [names.count("finished") for names in journals] == [1] * 24
    anew, resumed = (sum(names.count(what) > least for names in journals) for what, least in PARTS)
    assert anew >= 1
    story.append(f"each of 24 runs finished once; {anew} began anew, {resumed} went on from a saved state")

    stormy, quiet = tables(place, options)
    assert stormy.read_text() == quiet.read_text()
    story.append("the table is, byte for byte, that of --on here")
    print("\n".join(story))
    if keep := os.environ.get("STORM_RESULTS"):
        Path(keep).mkdir(parents=True, exist_ok=True)
        (Path(keep) / "story.txt").write_text("\n".join(story) + "\n")
        shutil.copy(stormy, keep)
