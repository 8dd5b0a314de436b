"""Faults of what a sweep stands on: clock, disk, network, MLflow's server. Each undoes itself but for the clock."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.world import World

HOUR = 3600


def step_clock(world: World, dice: Random) -> str:
    """The clock steps by an hour, forth or back, and stays so."""
    if not world.machine:
        return ""
    seconds = dice.choice([-HOUR, HOUR])
    world.machine.step_clock(seconds)
    return f"clock stepped by {seconds} s"


def slow_disk(world: World, dice: Random) -> str:
    """Each write and fsync takes up to a tenth of a second longer, for some seconds."""
    if not world.machine or not world.workers():
        return ""
    each, seconds = dice.uniform(0.01, 0.1), dice.uniform(1, 5)
    with world.machine.slow_disk(each):
        time.sleep(seconds)
    return f"writes took {each:.2f} s longer for {seconds:.1f} s"


def read_only_disk(world: World, dice: Random) -> str:
    """The disk of the runs is remounted read-only for a second or two."""
    if not world.machine or not world.disk:
        return ""
    with world.machine.read_only(world.disk):
        time.sleep(dice.uniform(0.5, 2))
    return "disk read-only"


def drop_packets(world: World, dice: Random) -> str:
    """No packet arrives for some seconds: between ranks, nodes and SLURM's daemons, and to MLflow."""
    if not world.network or not (world.on == "slurm" or world.workers()):
        return ""
    seconds = dice.uniform(0.5, 5)
    with world.network.dropping():
        time.sleep(seconds)
    return f"all packets dropped for {seconds:.1f} s"


def drop_packets_to_server(world: World, dice: Random) -> str:
    """No packet arrives at MLflow's server for some seconds."""
    if not world.network or not world.server:
        return ""
    seconds = dice.uniform(1, 15)
    with world.network.dropping("ipproto", "tcp", "dport", str(world.server.port)):
        time.sleep(seconds)
    return f"packets to MLflow dropped for {seconds:.1f} s"


def kill_server(world: World, dice: Random) -> str:
    """SIGKILL to all processes of MLflow's server, which is started again."""
    if not world.server:
        return ""
    world.server("mlflow-kill")
    time.sleep(dice.uniform(0, 4))
    world.server("mlflow-start")
    return "MLflow's server killed"


def freeze_server(world: World, dice: Random) -> str:
    """MLflow's server accepts connections and does not answer, for some seconds."""
    if not world.server:
        return ""
    world.server("mlflow-freeze")
    time.sleep(dice.uniform(1, 15))
    world.server("mlflow-thaw")
    return "MLflow's server stood still"
