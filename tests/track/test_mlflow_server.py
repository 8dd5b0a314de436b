"""MLflow's server is closed to strangers; and many writers, a follower, and a server that is killed, hangs, cannot be
reached, loses its database or fills its disk: no metric is lost or doubled.

All that need the server are in this file, so that it is started once.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from fakes import journals
from fakes.exported import Finished
from fakes.following import Following
from fakes.forking import Forked, forked
from fakes.journals import RUNS, Embedded, Server, difference, write_share
from fakes.missing import missing
from fakes.waiting import slowness, until
from mlflow.tracking import MlflowClient

from suite.cli.main import main
from suite.export.runtimes import why_not
from suite.methods.mse import Mse
from suite.recipe import Calibration, plan
from suite.sweeps.stored import save_sweep
from suite.track import store, sync


@pytest.fixture
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Embedded | Server:
    """An embedded database, or a server on PostgreSQL that is chosen by the environment alone."""
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    if request.param == "sqlite":
        return Embedded(tmp_path)
    server: Server = request.getfixturevalue("mlflow_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("writers", "count"),
    [(4, 12), *(pytest.param(64, count, marks=pytest.mark.long) for count in (100, 500))],
)
def test_many_writers_lose_and_double_no_metric_while_a_sync_follows(
    tmp_path: Path, backend: Embedded | Server, writers: int, count: int
) -> None:
    stages, name = journals.stages(count), f"storm-{writers}-{count}"
    save_sweep(tmp_path, name, {}, stages)
    store.prepare(tmp_path)
    words = ["sync", name, "--follow", "--runs", str(tmp_path), "--report", str(tmp_path / "none")]
    following = Forked(words, tmp_path, os.environ)
    processes = [
        forked.Process(target=write_share, args=(tmp_path, stages[number::writers], 0.2))
        for number in range(writers)
    ]
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * writers
    written = time.monotonic()
    said = following.communicate(timeout=400)[0]
    behind = time.monotonic() - written
    assert following.returncode == 0, said
    assert f"MLflow has all runs of {name}" in said and "behind" not in said, said
    states = backend.ask(RUNS, name)
    assert len({key for key, _ in states}) == len(states) == count
    assert {status for _, status in states} == {"FINISHED"}
    found = difference(backend, name, tmp_path, stages)
    assert found == (count * journals.EPOCHS * 7, 0, 0)
    story = (
        f"{backend}: {writers} writers made {count} runs in {written - began:.0f} s, every fifth in two attempts; "
        f"MLflow was up to date {behind:.1f} s later: {found[0]} points, {found[1]} lost, {found[2]} doubled"
    )
    print(story)
    if keep := os.environ.get("STORM_RESULTS"):
        Path(keep).mkdir(parents=True, exist_ok=True)
        with (Path(keep) / "story.txt").open("a") as stream:
            stream.write(f"{story}\n")


@contextmanager
def black_hole(port: int) -> Iterator[None]:
    """Who connects to the port is neither accepted nor refused: its queue is full, so that the kernel drops what
    comes, as a firewall does."""
    with socket.socket() as hole, socket.socket() as first, socket.socket() as second:
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def bound() -> bool:  # a process that was killed holds its port for a moment more
            with suppress(OSError):
                hole.bind(("127.0.0.1", port))
            return hole.getsockname()[1] == port

        until(bound)
        hole.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """The disk that the server has for itself takes not a byte more."""
    if not folder.is_mount():
        missing("a disk of its own needs root")
    with (folder / "filler").open("wb") as filler:
        for piece in (2**20, 2**12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(filler.fileno(), filler.seek(0, os.SEEK_END), piece)
        yield
    (folder / "filler").unlink()


FAULTS = {
    "server killed": ("mlflow-kill", "mlflow-start"),
    "port drops all": ("mlflow-kill", "mlflow-start"),
    "disk full": ("status", "up"),
    "accepts, never answers": ("mlflow-freeze", "mlflow-thaw"),
    "database stopped": ("database-stop", "database-start"),
}


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.long] * (fault != "server killed")) for fault in FAULTS]
)
def test_a_server_that_fails_in_the_middle_of_a_sync_and_comes_back_has_every_point_once(
    tmp_path: Path, backend: Server, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(round(2 * slowness())))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    stages, sweep = journals.stages(50), fault.replace(" ", "-").replace(",", "")
    write_share(tmp_path, stages[:40], 0)
    following = Following(sweep, stages, tmp_path)
    until(lambda: len(backend.ask(RUNS, sweep)) > 4)
    before, after = FAULTS[fault]
    backend(before)
    trouble = {"port drops all": black_hole(backend.port), "disk full": full_disk(backend.folder)}
    with trouble.get(fault, nullcontext()):
        until(lambda: bool(following.said))
        if fault == "port drops all":
            with pytest.raises(store.AwayError, match="timed out"):
                sync.sync(sweep, stages, tmp_path)
    if fault != "database stopped":
        there = len(backend.ask(RUNS, sweep))
        assert 4 < there < 40, f"{there} runs were there, so no sync was cut"
    write_share(tmp_path, stages[40:], 0)  # a run goes on meanwhile
    backend(after)
    away, back = following.ends()
    assert away.startswith(f"MLflow is behind: MLflow at {backend.address} failed: ") and "\n" not in away
    assert back.startswith("MLflow is back after ")
    states = backend.ask(RUNS, sweep)
    assert sorted(key for key, _ in states) == sorted(stage.key for stage in stages)
    assert {status for _, status in states} == {"FINISHED"}
    assert difference(backend, sweep, tmp_path, stages) == (50 * journals.EPOCHS * 7, 0, 0)


def test_the_server_asks_for_a_login_and_answers_to_no_other_name(mlflow_server: Server) -> None:
    login = ("admin", mlflow_server.password)
    asked = "/api/2.0/mlflow/experiments/search?max_results=1"

    def status(path: str, host: str | None = None, login: tuple[str, str] | None = None) -> int:
        headers = {"Host": host} if host else {}
        return requests.get(mlflow_server.address + path, auth=login, headers=headers, timeout=30).status_code

    artifacts = "/api/2.0/mlflow-artifacts/artifacts"
    for path in ("/", asked, artifacts, "/ajax-api/2.0/mlflow/users/current", "/graphql"):
        assert status(path) in (401, 405), path
        assert status(path, host="evil.example", login=login) == 403, path
    assert status(asked, login=("admin", "password1234")) == 401
    assert status(asked, login=login) == 200
    assert status("/health") == 200
    away = requests.post(
        mlflow_server.address + "/api/2.0/mlflow/experiments/create",
        json={"name": "from elsewhere"},
        auth=login,
        headers={"Origin": "http://evil.example"},
        timeout=30,
    )
    assert away.status_code == 403


def test_the_server_listens_on_the_loopback_alone_and_its_secrets_are_its_owners(
    mlflow_server: Server, tmp_path: Path
) -> None:
    folder, port = mlflow_server.folder, int(mlflow_server.address.rpartition(":")[2])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert [place for place in listening if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
    for name in ("admin-password", "secret-key", "auth.ini"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert len(mlflow_server.password) >= 32
    words = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if os.access(file, os.R_OK)]
    assert len(words) > 5
    assert not [line for line in words if mlflow_server.password.encode() in line]
    assert mlflow_server.password not in mlflow_server.lines
    assert f"export MLFLOW_TRACKING_PASSWORD=$(cat {folder}/admin-password)" in mlflow_server.lines
    assert "listen_addresses = ''" in (folder / "database" / "postgresql.conf").read_text()
    assert mlflow_server("up").count("export ") == 3, "a second `up` says the same and starts nothing"


def test_a_version_on_the_server_loads_from_its_artifacts(
    tmp_path: Path, mlflow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_not("onnxruntime"):
        missing(reason)
    for name, value in mlflow_server.environment.items():
        monkeypatch.setenv(name, value)
    finished = Finished(tmp_path)
    recipe = finished.recipe(Mse(8, 8, feed=Calibration(images=64, batch=64)))
    save_sweep(finished.folders.runs, "served", {}, plan([recipe]))
    runs = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data)]
    assert main(["sync", "served", *runs, "--report", str(tmp_path / "none")]) == 0
    shutil.rmtree(finished.folders.runs)  # what it needs is on the server
    (model,) = MlflowClient(mlflow_server.address).search_registered_models("name = 'served'")
    (alias,) = model.aliases
    loaded = mlflow.pyfunc.load_model(f"models:/served@{alias}")
    assert loaded.predict(np.zeros((3, 3, 8, 8), np.float32))["logits"].shape == (3, 10)
