"""The faults of the campaign are what they say, and a few of them, drawn by a fixed seed, lose nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from unittest.mock import Mock

import campaign
import pytest
from fakes import ROOT
from fakes.byte_faults import DAMAGES, FILES
from fakes.cluster import PROGRAMS
from fakes.faults import FAULTS
from fakes.machine import Machine
from fakes.missing import missing
from fakes.verdict import Verdict
from fakes.world import World

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler, cc")
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root, and ip")


def said(program: str, environment: dict[str, str], *opened: int) -> list[float]:
    """What a program prints, a JSON list; it inherits the files that are `opened`."""
    how = {"env": os.environ | environment, "pass_fds": opened, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", program], **how)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@needs_cc
def test_the_clock_steps_and_the_disk_is_slow_for_processes_that_run_already(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    program = """
import json, os, sys, time
file = os.open("FILE", os.O_CREAT | os.O_WRONLY)
started = time.monotonic()
before = time.time(), time.monotonic()
os.replace("FILE", "READY")
while time.time() < before[0] + 60 and time.monotonic() < started + 20:
    time.sleep(0.01)
began = time.monotonic()
os.fsync(file)
print(json.dumps([time.time() - before[0], time.monotonic() - before[1], time.monotonic() - began]))
"""
    ready = tmp_path / "ready"
    program = program.replace("FILE", str(tmp_path / "file")).replace("READY", str(ready))
    words = [sys.executable, "-c", program]
    process = subprocess.Popen(words, env=os.environ | machine.environment, stdout=subprocess.PIPE, text=True)
    while not ready.exists() and process.poll() is None:
        time.sleep(0.01)
    with machine.slow_disk(0.2):
        machine.step_clock(3600)
        clock, passed, took = json.loads(process.communicate(timeout=60)[0])
    assert 3600 <= clock < 3660 and passed < 20 and took >= 0.2
    machine.sound()
    assert abs(said("import time; print([time.time()])", machine.environment)[0] - time.time()) < 60


@needs_cc
@needs_root
def test_a_read_only_disk_takes_nothing_in_files_that_are_open_either(
    tmp_path: Path, small_disk: Path
) -> None:
    machine = Machine(tmp_path)
    program = """
import errno, json, os
def status(act):
    try:
        act()
    except OSError as error:
        return error.errno
    return 0
print(json.dumps([status(lambda: os.write(3, b"x")), status(lambda: open("DISK/new", "w")), errno.EROFS]))
""".replace("DISK", str(small_disk))
    with (small_disk / "opened").open("ab", buffering=0) as opened:
        program = program.replace("write(3", f"write({opened.fileno()}")
        with machine.read_only(small_disk):
            *got, wanted = said(program, machine.environment, opened.fileno())
        assert got == [wanted, wanted]
        assert said(program, machine.environment, opened.fileno())[:2] == [0, 0]
    for name in ("new", "opened"):
        (small_disk / name).unlink()


@needs_root
def test_a_network_of_its_own_drops_the_packets_that_are_named() -> None:
    program = """
import json, socket
from fakes.machine import Network
network = Network()
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
client = socket.create_connection(("127.0.0.1", port))
accepted, _ = server.accept()
accepted.settimeout(0.3)
def arrives():
    client.sendall(b"x")
    try:
        return len(accepted.recv(1))
    except TimeoutError:
        return 0
found = [arrives()]
with network.dropping("ipproto", "tcp", "dport", str(port)):
    found.append(arrives())
accepted.settimeout(10)
found.append(len(accepted.recv(1)))
with network.dropping("ipproto", "tcp", "dport", "1"):
    found.append(arrives())
print(json.dumps(found))
"""
    assert said(program, {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}) == [1, 0, 1, 1]


def test_each_kind_of_damage_is_drawn_for_each_file_that_decides_about_a_run() -> None:
    names = {fault.__name__ for fault in FAULTS}
    assert names >= {f"{kind}_{which}" for kind in DAMAGES for which in FILES}
    assert all((fault.__doc__ or "").endswith(".") for fault in FAULTS)
    content = bytes(range(200))
    assert all(how(content, Random(0)) != content for how, _ in DAMAGES.values())


def test_every_round_has_the_files_and_so_the_keys_of_the_run_that_nobody_disturbs(tmp_path: Path) -> None:
    worlds = [World(tmp_path / name, "here", None, None).user.folder for name in ("alone", "round-0")]
    for name in ("own.py", "tiny.py"):
        assert len({(folder / name).read_text() for folder in worlds}) == 1


def test_the_counts_of_several_sittings_add_up_also_where_one_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounds(
        faults: int, seed: int, on: list[str], folder: Path, before: tuple[Verdict, ...], network: None
    ) -> Iterator[Verdict]:
        for number in range(len(before), faults // 2):
            yield Verdict("here", number, [("stall", "a"), ("kill_sync", "b")], ["lost"] * (number == 1))

    monkeypatch.setattr(campaign, "campaign", rounds)
    monkeypatch.setattr(campaign, "Network", Mock(side_effect=OSError("none here")))
    made = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: made(dir=tmp_path))
    words = ["campaign", "--on", "here", "--faults", "6", "--out", str(tmp_path)]
    found = []
    for limit in (["--minutes", "0"], ["--minutes", "0"], []):
        monkeypatch.setattr(sys, "argv", words + limit)
        found.append((campaign.main(), (tmp_path / "README.md").read_text().splitlines()[0]))
        (tmp_path / "rounds.jsonl.1.writing").write_text(
            '{"on": "he'
        )  # of a sitting that was killed as it wrote
    assert found == [
        (0, "# 2 faults in 1 sweeps"),
        (1, "# 4 faults in 2 sweeps"),
        (1, "# 6 faults in 3 sweeps"),
    ]
    assert "2 of 3 sweeps lost nothing" in (tmp_path / "README.md").read_text()


@pytest.mark.long
@pytest.mark.parametrize("launchers", [("here", "torchrun"), ("slurm",)], ids=" and ".join)
def test_some_faults_lose_nothing(tmp_path: Path, launchers: tuple[str, ...]) -> None:
    """As `make campaign` runs it: with a network of its own, which this process cannot take."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    if "slurm" in launchers:
        path = environment["PATH"] = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        if lacking := [program for program in PROGRAMS if not shutil.which(program, path=path)]:
            missing(f"no {', '.join(lacking)}, so no SLURM is started; run tests/system-packages as root")
    words = ["--faults", "12", "--seed", "7", "--on", *launchers, "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "campaign", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without a loss" in (tmp_path / "README.md").read_text()
