"""Faults drawn by seed happen to sweeps that run on this machine, under torchrun and on a real SLURM of four nodes.

    make campaign FAULTS=1000 SEED=0              # hours; prints each round, and writes results/campaign/README.md
    make campaign FAULTS=1000 SEED=0 MINUTES=45   # one sitting: no round begins after so many minutes
    make campaign MINUTES=45 ON="here torchrun"   # without SLURM

The same command goes on after a stop or a sitting, with the round that was not at its end: those before it are in
results/campaign/rounds.jsonl, and the table counts all of them.

Each round is a fresh sweep of a training and two recipes. Some faults happen to it at random moments; then it is
brought to its end by launching again, as a user would. Every stage must be done exactly once, outcomes and weights
must be those of a sweep that nobody disturbed, bit for bit, MLflow must have every metric once, and no process may be
left.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from fakes.cluster import PROGRAMS, Cluster
from fakes.faults import ALL as LAUNCHERS
from fakes.faults import FAULTS
from fakes.journals import Server
from fakes.machine import Machine, Network
from fakes.verdict import Verdict, count, read_rounds, write_rounds
from fakes.waiting import slowness, until
from fakes.world import World

from suite.recipe.errors import SuiteError
from suite.record.provenance import commit_and_diff
from suite.track import store

A_ROUND = 5
"""Faults of one round, on average."""
WHOLE = 20
"""Seconds that a sweep of one round takes from its first step on, about."""
SERVED = 1 / 3
"""Of the rounds of this machine, those whose MLflow is a server."""
RENAMED = "update experiments set name = name || '-' || experiment_id where name = 'SWEEP' returning name"


@contextmanager
def small_disk() -> Iterator[Path]:
    """A disk of 64 MB of its own; needs root."""
    folder = Path(tempfile.mkdtemp(prefix="suite-campaign-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def slurm(folder: Path) -> Iterator[Cluster]:
    """A real SLURM of four nodes."""
    cluster = Cluster(folder)
    cluster.manage("up")
    try:
        yield cluster
    finally:
        cluster.manage("down")


@cache
def database() -> bytes:
    """An empty one of MLflow's, made once: its migrations take seconds."""
    with tempfile.TemporaryDirectory() as folder:
        store.prepare(Path(folder))
        return (Path(folder) / "mlflow.db").read_bytes()


def undisturbed(folder: Path, on: str, cluster: Cluster | None) -> Path:
    """The runs of the sweep that nobody disturbs."""
    world = World(folder, on, cluster, None)
    world.launch()
    world.finish()
    return world.user.runs


@dataclass
class Surroundings:
    """What the rounds of a campaign share; `server` is asked for MLflow's, which is started when it first is."""

    folder: Path
    cluster: Cluster | None = None
    cluster_disk: Path | None = None
    machine: Machine | None = None
    network: Network | None = None
    server: Callable[[], Server] | None = None


@contextmanager
def mlflow_server() -> Iterator[Server]:
    """MLflow on PostgreSQL, as `make mlflow-server` starts it."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-mlflow-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(folder, port)
    try:
        yield server
    finally:
        server("down")
        shutil.rmtree(folder)


def one_round(on: str, number: int, seed: int, alone: Path, around: Surroundings) -> Verdict:
    """Launch, let faults happen, finish, compare. All that is drawn is drawn from `seed`."""
    dice, verdict, folder = Random(seed), Verdict(on, seed), around.folder / f"round-{number}"
    with ExitStack() as stack:
        if on == "slurm":
            world = World(folder, on, around.cluster, around.cluster_disk)
            world.use(None, around.network, None)
        else:
            disk = stack.enter_context(small_disk()) if os.geteuid() == 0 else None
            world = World(folder, on, None, disk)
            with_server = around.server is not None and dice.random() < SERVED
            world.use(around.machine, around.network, around.server() if with_server else None)  # type: ignore[misc]
        world.user.runs.mkdir(exist_ok=True)
        (world.user.runs / "mlflow.db").write_bytes(database())
        try:
            _disturb(world, dice, verdict)
            world.finish()
            verdict.wrong += world.wrong(alone)
        except (AssertionError, SuiteError, subprocess.SubprocessError) as error:
            verdict.wrong.append(str(error)[-2000:])
        finally:
            _clean_up(world, folder, verdict)
    return verdict


def _disturb(world: World, dice: Random, verdict: Verdict) -> None:
    """Launch, and let faults happen."""
    world.launch()
    until(world.at_work)
    time.sleep(dice.uniform(0, WHOLE) * slowness())
    for _ in range(dice.randint(1, 2 * A_ROUND - 1)):
        if struck := strike(world, dice):
            verdict.struck.append(struck)
        world.go_on()
        time.sleep(dice.uniform(0, 4) * slowness())


def _clean_up(world: World, folder: Path, verdict: Verdict) -> None:
    """End what is left; of a round that lost something its folder and its runs stay."""
    world.kill_everything()
    if world.on == "slurm":
        world.cluster().clear()
    if world.machine:
        world.machine.sound()
    if world.server:  # the sweep of the next round has the same name
        world.server.ask(RENAMED, "own")
    runs = world.user.runs.resolve()
    if verdict.wrong and world.disk:
        with suppress(OSError, shutil.Error):
            shutil.copytree(runs, folder / "runs-of-it")
    if world.disk:
        shutil.rmtree(runs, ignore_errors=True)
    if not verdict.wrong:
        shutil.rmtree(folder)


def strike(world: World, dice: Random) -> tuple[str, str] | None:
    """The first of all faults, in an order that is drawn, that finds something to hit: its name, and what it did."""
    possible = [fault for fault, where in FAULTS.items() if world.on in where]
    for fault in dice.sample(possible, len(possible)):
        if what := fault(world, dice):
            return fault.__name__, what
    return None


def campaign(
    faults: int,
    seed: int,
    launchers: list[str],
    folder: Path,
    before: Sequence[Verdict] = (),
    network: Network | None = None,
) -> Generator[Verdict]:
    """Rounds after those `before`, until so many faults have happened in all."""
    with ExitStack() as stack:
        around = Surroundings(folder, network=network)
        if shutil.which("cc"):
            around.machine = Machine(folder)
            around.machine.start_forkserver()
        if list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
            around.server = cache(lambda: stack.enter_context(mlflow_server()))
        if "slurm" in launchers:  # the disk before the nodes, which have what was mounted then
            around.cluster_disk = stack.enter_context(small_disk())
            around.cluster = stack.enter_context(slurm(folder / "slurm"))
        alone = {
            on: undisturbed(folder / f"alone-{on}", on, around.cluster if on == "slurm" else None)
            for on in launchers
        }
        happened, number = count(before), len(before)
        while happened < faults:
            on, began = launchers[number % len(launchers)], time.monotonic()
            verdict = one_round(on, number, seed * 1_000_000 + number, alone[on], around)
            verdict.seconds, verdict.commit = time.monotonic() - began, commit_and_diff()["commit"]
            happened += len(verdict.struck)
            number += 1
            yield verdict


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=1000, help="in all sittings together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="begin no round later than this in this sitting")
    parser.add_argument("--on", nargs="+", choices=LAUNCHERS, default=LAUNCHERS)
    parser.add_argument("--out", type=Path, default=Path("results/campaign"))
    return parser


def main() -> int:
    """Run a campaign, or a sitting of one; 1 where something was lost."""
    parser, deadline = _arguments(), time.monotonic()
    chosen = parser.parse_args()
    deadline += 60 * chosen.minutes if chosen.minutes is not None else math.inf
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if "slurm" in chosen.on and (lacking := [name for name in PROGRAMS if not shutil.which(name)]):
        parser.error(
            f"no {', '.join(lacking)}: run tests/system-packages as root, or leave slurm out of --on"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster's daemons end too
    chosen.out.mkdir(parents=True, exist_ok=True)
    verdicts = read_rounds(chosen.out)
    if any(verdict.seed // 1_000_000 != chosen.seed for verdict in verdicts):
        parser.error(f"{chosen.out} has rounds of another --seed; give another --out, or remove it")
    command = f"make campaign FAULTS={chosen.faults} SEED={chosen.seed}"
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    network = None
    try:
        network = Network()
    except OSError as error:
        print(f"no packets are dropped: {error}", flush=True)
    if not shutil.which("cc"):
        print("no clock steps, and no disk is slow or read-only: there is no C compiler, cc", flush=True)
    before = len(verdicts)
    try:
        all_rounds = campaign(chosen.faults, chosen.seed, chosen.on, folder, tuple(verdicts), network)
        with closing(all_rounds) as rounds:  # which ends the cluster and the server
            for verdict in rounds:
                verdicts.append(verdict)
                write_rounds(verdicts, command, chosen.out)
                what = "; ".join(words for _, words in verdict.struck) or "nothing to hit"
                print(f"{count(verdicts):5d}  {verdict.on}, seed {verdict.seed}: {what}", flush=True)
                for wrong in verdict.wrong:
                    print(f"       WRONG: {wrong}", flush=True)
                if time.monotonic() > deadline:
                    print(f"{chosen.minutes:g} minutes are over; the same command goes on")
                    break
    finally:
        if any(verdict.wrong for verdict in verdicts[before:]):
            print(f"what is left of the rounds that lost something is in {folder}")
        else:
            shutil.rmtree(folder)
    return int(any(verdict.wrong for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
