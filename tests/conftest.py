"""Fixtures shared by the tests, and the rule for what may be skipped."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from fakes import ROOT
from fakes.missing import missing
from xdist.scheduler import LoadFileScheduling

STARTS_WORKERS = "PYTEST_XDIST_WORKER" not in os.environ and bool(re.search(" -n [^0]", " ".join(sys.argv)))
"""Whether this process runs no test itself: its workers would wait while it imports torch and MLflow."""

os.environ.pop("COLUMNS", None)  # of pytest's workers; it would decide how long printed lines are

if not STARTS_WORKERS:
    import torch
    from fakes.cifar10 import folder_with_npz
    from fakes.cluster import PROGRAMS, Cluster, Place, traces
    from fakes.journals import Server
    from fakes.networks import lived_in
    from fakes.user import User
    from fakes.waiting import limit
    from torch import nn

    from suite.recipe import Dataset, Network, Precision, Sgd, Training

    pytest_plugins = (
        "fakes.commands",
        "fakes.image_files",
        "fakes.embedded",
        "fakes.exported",
        "fakes.pages",
    )

    # Two threads that share a busy core wait for each other far longer than they save.
    torch.set_num_threads(1)


# A shared machine's clock proves nothing. `make test-long` asks for the profile "long".
hypothesis.settings.register_profile("suite", deadline=None, max_examples=25)
hypothesis.settings.register_profile("long", deadline=None, max_examples=200)
hypothesis.settings.load_profile("suite")


class OneCluster(LoadFileScheduling):
    """One worker runs all tests of the SLURM cluster, and one those of a file whose tests share what it makes; every
    other test function goes to the next free worker, of the launchers each by itself."""

    def _split_scope(self, nodeid: str) -> str:
        if of_the_cluster(nodeid):
            return "slurm"
        if nodeid.startswith("tests/launch/test_contract.py"):
            return nodeid
        return file_of(nodeid) if shares(file_of(nodeid)) else nodeid.partition("[")[0]

    def remove_node(self, node: Any) -> str | None:
        # xdist gives what a crashed worker had done to others, who get nothing to do by it and wait for ever.
        own = self.assigned_work[node]
        for scope in [scope for scope, tests in own.items() if all(tests.values())]:
            del own[scope]
        return super().remove_node(node)

    def _reschedule(self, node: Any) -> None:
        # What takes the place of a crashed worker has to collect the tests first.
        if node in self.registered_collections:
            super()._reschedule(node)


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def of_the_cluster(nodeid: str) -> bool:
    return nodeid.startswith("tests/slurm/") or (
        nodeid.startswith("tests/launch/test_contract.py") and "[slurm" in nodeid
    )


@cache
def shares(file: str) -> bool:
    """Whether the tests of a file share what one of them makes: by a fixture of the module or a cached function."""
    text = (ROOT / file).read_text()
    return any(word in text for word in ('scope="module"', "\n@cache", "mlflow_server", "cifar10_folder"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneCluster:
    """The scheduler of `-n 3`. (`--dist loadgroup` groups nothing with pytest 9 and xdist 3.8.)"""
    return OneCluster(config, log)


def seconds_of_files() -> dict[str, float]:
    """How long the tests of each file took when tests/times.md was made."""
    file = ROOT / "tests" / "times.md"
    rows = (
        re.findall(r"^\| (tests/\S+) \| \d+ \| ([\d.]+) \|$", file.read_text(), re.M) if file.exists() else []
    )
    return {name: float(seconds) for name, seconds in rows}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What one worker runs whole begins first: the tests of the cluster, which mostly wait, then whole files, those
    that take long before others, so that no worker has one left when the others have none."""
    seconds = seconds_of_files()

    def place(item: pytest.Item) -> tuple[bool, bool, float]:
        file = file_of(item.nodeid)
        return not of_the_cluster(item.nodeid), not shares(file), -seconds.get(file, 0.0)

    items.sort(key=place)


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images of CIFAR-10, from the folder that SUITE_TEST_CIFAR10 names; no test downloads its 170 MB."""
    folder = os.environ.get("SUITE_TEST_CIFAR10")
    if not folder:
        pytest.skip("SUITE_TEST_CIFAR10 names no folder with CIFAR-10")
    return folder_with_npz(Path(folder), tmp_path_factory.mktemp("cifar10"))


@pytest.fixture
def network() -> nn.Module:
    """As `lived_in`, for this test alone."""
    return lived_in()


@pytest.fixture
def tiny_training() -> Training:
    """One epoch on the digits: about two seconds on one core."""
    sgd = Sgd(epochs=1, batch=128, lr=0.05, flip=False, pad=1, precision=Precision("O0"))
    return Training(Network("resnet20"), Dataset("digits", size=8), sgd)


@pytest.fixture(scope="session")
def small_disk() -> Iterator[Path]:
    """A disk of 64 MB, which the nodes have if it is there before they are."""
    if os.geteuid() != 0:
        missing("a disk of its own needs root")
    folder = Path(tempfile.mkdtemp(prefix="suite-small-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture(scope="session")
def running_cluster(small_disk: Path) -> Iterator[Cluster]:
    """The run's one real SLURM of four nodes; nothing is left of it in the end."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if lacking := [program for program in PROGRAMS if not shutil.which(program, path=path)]:
        missing(f"no {', '.join(lacking)}, so no SLURM is started; run tests/system-packages as root")
    cluster = Cluster(
        Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"suite-slurm-{os.getpid()}"
    )
    assert f"export SLURM_CONF={cluster.folder}/etc/slurm.conf\n" in cluster.manage("up")
    yield cluster
    cluster.manage("down")
    shutil.rmtree(cluster.folder, ignore_errors=True)
    assert traces(cluster.folder) == []


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, empty and whole before and after each test."""
    yield running_cluster
    running_cluster.clear()


@pytest.fixture
def place(tmp_path: Path, cluster: Cluster) -> Place:
    """A folder whose sweeps run on that cluster."""
    return Place(tmp_path, cluster)


@pytest.fixture(params=["here", "torchrun", "slurm"])
def user(request: pytest.FixtureRequest, tmp_path: Path, database: bytes) -> Iterator[User]:
    """A user of each of the launchers, whose launches have ended after the test."""
    if request.param == "slurm":
        yield request.getfixturevalue("place")
        return
    one = User(tmp_path, request.param)
    one.runs.mkdir()
    (one.runs / "mlflow.db").write_bytes(database)
    yield one
    for process in one.launches:
        process.terminate()
        process.communicate(timeout=limit(90))


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A prepared database without an experiment; making one takes seconds, so that all workers share one."""
    from suite.track import store

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store.prepare(folder)
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[Server]:
    """MLflow on PostgreSQL, as `make mlflow-server` starts it."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        missing("MLflow's server needs PostgreSQL; install the package postgresql")
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="suite-mlflow-", dir=base))
    if os.geteuid() == 0:  # a disk of its own, which a test fills
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)], check=True)
    folder.chmod(0o711)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(folder, port)
    yield server
    server("down")
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    shutil.rmtree(folder)
