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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from random import Random

from fakes.cluster import PROGRAMS, Cluster
from fakes.faults import FAULTS
from fakes.waiting import slowness, until
from fakes.world import Verdict, World

from suite.track import store

A_ROUND = 3
"""Faults of one round, on average."""
WHOLE = 20
"""Seconds that a sweep of one round takes from its first step on, about."""


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


def one_round(folder: Path, on: str, seed: int, alone: Path, cluster: Cluster | None) -> Verdict:
    """Launch, let faults happen, finish, compare. All that is drawn is drawn from `seed`."""
    dice, verdict = Random(seed), Verdict(on, seed)
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk()) if os.geteuid() == 0 and not cluster else None
        world = World(folder, on, cluster, disk)
        world.user.runs.mkdir(exist_ok=True)
        (world.user.runs / "mlflow.db").write_bytes(database())
        try:
            world.launch()
            until(world.at_work)
            time.sleep(dice.uniform(0, WHOLE) * slowness())
            for _ in range(dice.randint(1, 2 * A_ROUND - 1)):
                if struck := strike(world, dice):
                    verdict.struck.append(struck)
                world.go_on()
                time.sleep(dice.uniform(0, 4) * slowness())
            world.finish()
            verdict.wrong += world.wrong(alone)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            verdict.wrong.append(str(error)[-2000:])
        finally:
            world.kill_everything()
            if cluster:
                cluster.clear()
    if not verdict.wrong:
        shutil.rmtree(folder)
    return verdict


def strike(world: World, dice: Random) -> tuple[str, str] | None:
    """The first of all faults, in an order that is drawn, that finds something to hit: its name, and what it did."""
    possible = [fault for fault, where in FAULTS.items() if world.on in where]
    for fault in dice.sample(possible, len(possible)):
        if what := fault(world, dice):
            return fault.__name__, what
    return None


def campaign(faults: int, seed: int, launchers: list[str], folder: Path) -> Iterator[Verdict]:
    """Rounds, until so many faults have happened."""
    with ExitStack() as stack:
        cluster = stack.enter_context(slurm(folder / "slurm")) if "slurm" in launchers else None
        of = {on: cluster if on == "slurm" else None for on in launchers}
        alone = {on: undisturbed(folder / f"alone-{on}", on, of[on]) for on in launchers}
        happened = number = 0
        while happened < faults:
            on = launchers[number % len(launchers)]
            verdict = one_round(folder / f"round-{number}", on, seed * 1_000_000 + number, alone[on], of[on])
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
    for verdict in campaign(chosen.faults, chosen.seed, chosen.on, folder):
        verdicts.append(verdict)
        happened = sum(len(one.struck) for one in verdicts)
        what = "; ".join(words for _, words in verdict.struck) or "nothing to hit"
        print(f"{happened:5d}  {verdict.on}, seed {verdict.seed}: {what}", flush=True)
        for wrong in verdict.wrong:
            print(f"       WRONG: {wrong}", flush=True)
        chosen.out.mkdir(parents=True, exist_ok=True)
        command = f"make campaign FAULTS={chosen.faults} SEED={chosen.seed}"
        (chosen.out / "README.md").write_text(page(verdicts, command, time.monotonic() - began))
    return int(any(verdict.wrong for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
