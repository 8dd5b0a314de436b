"""Faults drawn by seed happen to sweeps that run on this machine, under torchrun and on a real SLURM of four nodes.

    make campaign FAULTS=1000 SEED=0          # hours; prints each round, and writes results/campaign/README.md

Each round is a fresh sweep of a training and two recipes. Some faults happen to it at random moments; then it is
brought to its end by launching again, as a user would. Every stage must be done exactly once, outcomes and weights
must be those of a sweep that nobody disturbed, bit for bit, MLflow must have every metric once, and no process may be
left.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from fakes.cluster import PROGRAMS, Cluster
from fakes.faults import FAULTS
from fakes.journals import Server
from fakes.machine import Machine, Network
from fakes.waiting import slowness, until
from fakes.world import Verdict, World

from suite.recipe.errors import SuiteError
from suite.track import store

A_ROUND = 3
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
    faults: int, seed: int, launchers: list[str], folder: Path, network: Network | None = None
) -> Iterator[Verdict]:
    """Rounds, until so many faults have happened."""
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
        happened = number = 0
        while happened < faults:
            on = launchers[number % len(launchers)]
            verdict = one_round(on, number, seed * 1_000_000 + number, alone[on], around)
            happened += len(verdict.struck)
            number += 1
            yield verdict


def table(verdicts: list[Verdict]) -> str:
    """Markdown: of each fault how often it happened, in how many rounds of all, and how many of these lost nothing."""
    times, rounds, sound = Counter[str](), Counter[str](), Counter[str]()
    for verdict in verdicts:
        names = [name for name, _ in verdict.struck]
        times.update(names)
        rounds.update(set(names))
        sound.update(set(names) if not verdict.wrong else ())
    meaning: dict[str, Callable[..., str]] = {fault.__name__: fault for fault in FAULTS}
    lines = ["| fault | times | rounds with it | of these without a loss |", "| --- | ---: | ---: | ---: |"]
    for name, count in times.most_common():
        words = (meaning[name].__doc__ or name).splitlines()[0].rstrip(".")
        lines.append(f"| {words} | {count} | {rounds[name]} | {sound[name]} |")
    return "\n".join(lines)


def page(verdicts: list[Verdict], command: str, seconds: float) -> str:
    """The record of a campaign."""
    happened = sum(len(verdict.struck) for verdict in verdicts)
    lost = [verdict for verdict in verdicts if verdict.wrong]
    lines = [
        f"# {happened} faults in {len(verdicts)} sweeps",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {seconds / 3600:.1f} hours on {os.cpu_count()} cores "
        f"({platform.machine()}, Python {platform.python_version()}). Each sweep is a training and two recipes, "
        f"launched on {', '.join(sorted({verdict.on for verdict in verdicts}))} in turn, with some faults at random "
        "moments. Then every stage has to be done exactly once, with the outcome and the weights, bit for bit, of a "
        "sweep that nobody disturbed, every metric once in MLflow, and no process left.",
        "",
        f"{len(verdicts) - len(lost)} of {len(verdicts)} sweeps lost nothing.",
        "",
        table(verdicts),
        "",
    ]
    for verdict in lost:
        what = "; ".join(words for _, words in verdict.struck)
        lines += [f"- {verdict.on}, seed {verdict.seed}: {what}. Wrong: {'; '.join(verdict.wrong)[:600]}"]
    return "\n".join(lines)


def main() -> int:
    """Run a campaign; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on", nargs="+", default=["here", "torchrun", "slurm"])
    parser.add_argument("--out", type=Path, default=Path("results/campaign"))
    chosen = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if "slurm" in chosen.on and (lacking := [name for name in PROGRAMS if not shutil.which(name)]):
        parser.error(
            f"no {', '.join(lacking)}: run tests/system-packages as root, or leave slurm out of --on"
        )
    began, verdicts = time.monotonic(), list[Verdict]()
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    network = None
    try:
        network = Network()
    except OSError as error:
        print(f"no packets are dropped: {error}", flush=True)
    if not shutil.which("cc"):
        print("no clock steps, and no disk is slow or read-only: there is no C compiler, cc", flush=True)
    for verdict in campaign(chosen.faults, chosen.seed, chosen.on, folder, network):
        verdicts.append(verdict)
        happened = sum(len(one.struck) for one in verdicts)
        what = "; ".join(words for _, words in verdict.struck) or "nothing to hit"
        print(f"{happened:5d}  {verdict.on}, seed {verdict.seed}: {what}", flush=True)
        for wrong in verdict.wrong:
            print(f"       WRONG: {wrong}", flush=True)
        chosen.out.mkdir(parents=True, exist_ok=True)
        command = f"make campaign FAULTS={chosen.faults} SEED={chosen.seed}"
        (chosen.out / "README.md").write_text(page(verdicts, command, time.monotonic() - began))
    if any(verdict.wrong for verdict in verdicts):
        print(f"what is left of the rounds that lost something is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
