"""Faults that a campaign draws: each does to a running sweep what machines, disks and people do, for real.

A fault is a function of the World and its dice; it answers in words what it did, or "" where there was nothing to hit.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import psutil

from fakes import machine_faults
from fakes.byte_faults import DAMAGES, damaging
from fakes.cluster import nodes_at_work

if TYPE_CHECKING:
    from fakes.world import World

Fault = Callable[["World", Random], str]
ALL, LOCAL, SLURM = ("here", "torchrun", "slurm"), ("here", "torchrun"), ("slurm",)


def kill_process(world: World, dice: Random) -> str:
    """SIGKILL to a process of a stage: a rank, or what starts the ranks."""
    if not (found := world.workers()):
        return ""
    victim = dice.choice(found)
    with suppress(psutil.NoSuchProcess):
        victim.kill()
        return f"process {victim.pid} of {len(found)} killed"
    return ""


def kill_launcher(world: World, dice: Random) -> str:
    """SIGKILL to `suite launch` or `suite resume`, with MLflow's follower in it."""
    alive = [process for process in world.user.launches if process.poll() is None]
    if not alive:
        return ""
    alive[-1].kill()
    alive[-1].wait(60)
    return "launcher killed"


def kill_submission(world: World, dice: Random) -> str:
    """SIGKILL to a `suite launch` that submits the sweep to SLURM, or finds it submitted."""
    process = world.user.start("launch", "own.py", *world.user.by, *world.options)
    time.sleep(dice.uniform(0.2, 4))
    process.kill()
    process.wait(60)
    return "a launch killed while it submits"


def ask_to_stop(world: World, dice: Random) -> str:
    """SIGTERM or SIGUSR2 to all processes of a stage, as a scheduler that wants the machine back."""
    number = dice.choice([signal.SIGTERM, signal.SIGUSR2])
    found = world.workers()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    return f"{number.name} to all its processes ({len(found)})" if found else ""


def stall(world: World, dice: Random) -> str:
    """All processes of the sweep stand still for some seconds, as on a machine that swaps."""
    found = world.workers()
    seconds = dice.uniform(1, 3)
    for number, pause in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        time.sleep(pause if found else 0)
    return f"all its processes ({len(found)}) stood still for {seconds:.1f} s" if found else ""


def kill_sync(world: World, dice: Random) -> str:
    """A `suite sync` beside the launcher's own follower is killed in the middle."""
    process = world.user.start("sync", "own")
    time.sleep(dice.uniform(0.2, 2))
    process.kill()
    process.wait(60)
    return "a sync killed"


def second_launcher(world: World, dice: Random) -> str:
    """The same sweep is launched again while it runs."""
    done = world.user.attempt("launch", "own.py", *world.user.by, *world.options)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr
    return f"launched again: exit {done.returncode}"


def full_disk(world: World, dice: Random) -> str:
    """The disk takes not a byte more for a second or two."""
    if not world.disk:
        return ""
    ballast = world.disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 16))
    time.sleep(dice.uniform(0.5, 2))
    ballast.unlink()
    return "disk full"


def cut_power(world: World, dice: Random) -> str:
    """A node at work loses its power, and comes back later."""
    cluster, node = world.cluster(), _node_at_work(world, dice)
    if not node:
        return ""
    cluster.manage("node-kill", node)
    cluster.lose(node)
    time.sleep(dice.uniform(0, 2))
    cluster.manage("node-start", node)
    cluster.attempt(f"scontrol update nodename={node} state=resume")
    return f"{node} lost its power"


def lose_sight(world: World, dice: Random) -> str:
    """SLURM takes a node for lost that still works: the stage is sent again while its orphan lives."""
    cluster, node = world.cluster(), _node_at_work(world, dice)
    if not node:
        return ""
    cluster.manage("slurmd-kill", node)
    cluster.lose(node)
    time.sleep(dice.uniform(0, 2))
    cluster.takes_up(node)
    return f"{node} out of sight, its jobs alive"


def kill_slurmd(world: World, dice: Random) -> str:
    """The daemon of a node is killed and started again; its jobs go on."""
    cluster, node = world.cluster(), dice.choice(["n1", "n2", "n3", "n4"])
    cluster.manage("slurmd-kill", node)
    time.sleep(dice.uniform(0, 2))
    cluster.manage("slurmd-start", node)
    return f"slurmd of {node} killed"


def kill_controller(world: World, dice: Random) -> str:
    """slurmctld is killed and started again."""
    return _started_again(world, dice, "controller")


def kill_accounting(world: World, dice: Random) -> str:
    """slurmdbd is killed and started again."""
    return _started_again(world, dice, "accounting")


FAULTS: dict[Fault, tuple[str, ...]] = {
    kill_process: ALL,
    kill_launcher: LOCAL,
    kill_submission: SLURM,
    ask_to_stop: LOCAL,
    stall: ALL,
    kill_sync: ALL,
    second_launcher: ALL,
    full_disk: ALL,
    machine_faults.read_only_disk: LOCAL,
    machine_faults.slow_disk: LOCAL,
    machine_faults.step_clock: LOCAL,
    machine_faults.drop_packets: ("torchrun", "slurm"),
    machine_faults.drop_packets_to_server: LOCAL,
    machine_faults.kill_server: LOCAL,
    machine_faults.freeze_server: LOCAL,
    cut_power: SLURM,
    lose_sight: SLURM,
    kill_slurmd: SLURM,
    kill_controller: SLURM,
    kill_accounting: SLURM,
    **{damaging(kind, which): LOCAL for kind in DAMAGES for which in ("journal", "state")},
    **{damaging(kind, which): ALL for kind in DAMAGES for which in ("checkpoint", "outcome")},
    **{damaging(kind, "array_record"): SLURM for kind in DAMAGES},
}
"""Every fault, and on which launchers it is drawn."""


def _started_again(world: World, dice: Random, daemon: str) -> str:
    world.cluster().manage(f"{daemon}-kill")
    time.sleep(dice.uniform(0, 3))
    world.cluster().manage(f"{daemon}-start")
    return f"SLURM's {daemon} killed"


def _node_at_work(world: World, dice: Random) -> str:
    """One that runs jobs now, "" where none does."""
    nodes = nodes_at_work(world.cluster())
    return dice.choice(nodes) if nodes else ""
