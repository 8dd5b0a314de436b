"""Fixtures shared by the tests, and the rule for what may be skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from journals import Server
from places import PROGRAMS, Cluster, Place, manage, until
from torch import nn

from suite import models
from suite.recipe import Dataset, Network, Precision, Sgd, Training

torch.set_num_threads(1)  # two threads that share a busy core wait for each other far longer than they save
hypothesis.settings.register_profile("suite", deadline=None)  # a shared machine's clock proves nothing
hypothesis.settings.load_profile("suite")


def missing(what: str) -> None:
    """Skip, saying what this machine lacks; where CI is set, fail: there everything must be installed."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (and CI is set, so this must not be skipped)")
    pytest.skip(what)


@pytest.fixture
def cifar10_folder() -> Path:
    """The folder that SUITE_TEST_CIFAR10 names; it is 100 to 180 MB, so no test downloads it."""
    folder = os.environ.get("SUITE_TEST_CIFAR10")
    if not folder:
        pytest.skip("SUITE_TEST_CIFAR10 names no folder with CIFAR-10")
    return Path(folder)


@pytest.fixture
def network() -> nn.Module:
    """As `lived_in`, for this test alone."""
    return lived_in()


def lived_in() -> nn.Module:
    """A small ResNet-20 with random weights and lived-in BatchNorm statistics, evaluating."""
    torch.manual_seed(0)
    model = models.build(Network("resnet20"))
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32))
    return model.eval()


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
def cluster(small_disk: Path) -> Iterator[Cluster]:
    """A real SLURM of four nodes."""
    if os.geteuid() != 0 or any(not shutil.which(p, path="/usr/sbin:/usr/bin:/sbin:/bin") for p in PROGRAMS):
        missing("a cluster needs root and Debian's SLURM, munge and MariaDB")
    folder = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"suite-slurm-{os.getpid()}"
    manage("up", str(folder))
    yield Cluster(folder)
    manage("down", str(folder))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(tmp_path: Path, cluster: Cluster) -> Iterator[Place]:
    """A folder whose sweeps run on that cluster, which is empty afterwards."""
    yield Place(tmp_path, cluster)
    cluster("scancel --user=root")
    until(lambda: not cluster("squeue --noheader"), lambda: cluster("squeue"), 120)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A prepared database without an experiment; making one takes seconds."""
    from suite import tracking

    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.prepare(folder)
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
