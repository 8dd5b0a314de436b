"""Faults that a campaign draws: each does to a running sweep what machines, disks and people do, for real.

A fault is a function of the World and its dice; it answers in words what it did, or "" where there was nothing to hit.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import psutil

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
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    return f"launched again: exit {done.returncode}"


def full_disk(world: World, dice: Random) -> str:
    """The disk takes not a byte more for a second or two."""
    ballast = world.user.runs / "ballast"
    if not world.user.runs.resolve().is_mount():
        return ""
    with suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 16))
    time.sleep(dice.uniform(0.5, 2))
    ballast.unlink()
    return "disk full"


def torn_journal(world: World, dice: Random) -> str:
    """Everything dies, and the last line of a journal did not reach the disk whole. What was written before a state
    was saved has reached it."""
    if not any(world.user.runs.glob("*/events.jsonl")):
        return ""
    world.kill_everything()
    newest = max(world.user.runs.glob("*/events.jsonl"), key=_age)
    if any(_age(state) > _age(newest) for state in newest.parent.glob("resume-*.pt")):
        return "everything died"
    return _damage(world, "*/events.jsonl", lambda bytes_: bytes_[: -dice.randint(2, 40)], "journal torn")


def flipped_state(world: World, dice: Random) -> str:
    """Everything dies, and a bit of the newest saved state has flipped."""
    return _damage(world, "*/resume-*.pt", lambda bytes_: _flipped(bytes_, dice), "saved state flipped")


def truncated_state(world: World, dice: Random) -> str:
    """Everything dies, and the newest saved state is half as long."""
    return _damage(world, "*/resume-*.pt", _half, "saved state cut in half")


def flipped_result(world: World, dice: Random) -> str:
    """A bit of a finished training's weights has flipped. Whoever finds it is told to remove its run directory."""
    return _damage(
        world, "*/checkpoint.pt", lambda bytes_: _flipped(bytes_, dice), "finished weights flipped"
    )


def truncated_outcome(world: World, dice: Random) -> str:
    """An outcome is half as long. Whoever finds it is told to remove its run directory."""
    return _damage(world, "*/outcome.json", _half, "outcome cut in half")


def truncated_array_record(world: World, dice: Random) -> str:
    """The record of a job array is half as long."""
    return _damage(world, "slurm/*/array.json", _half, "array record cut in half")


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
    cluster = world.cluster()
    cluster.manage("controller-kill")
    time.sleep(dice.uniform(0, 3))
    cluster.manage("controller-start")
    return "slurmctld killed"


FAULTS: dict[Fault, tuple[str, ...]] = {
    kill_process: ALL,
    kill_launcher: LOCAL,
    ask_to_stop: LOCAL,
    stall: ALL,
    kill_sync: ALL,
    second_launcher: ALL,
    full_disk: ALL,
    torn_journal: LOCAL,
    flipped_state: LOCAL,
    truncated_state: LOCAL,
    flipped_result: ALL,
    truncated_outcome: ALL,
    truncated_array_record: SLURM,
    cut_power: SLURM,
    lose_sight: SLURM,
    kill_slurmd: SLURM,
    kill_controller: SLURM,
}
"""Every fault, and on which launchers it is drawn."""


def _node_at_work(world: World, dice: Random) -> str:
    """One that runs jobs now, "" where none does."""
    nodes = nodes_at_work(world.cluster())
    return dice.choice(nodes) if nodes else ""


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns


def _flipped(content: bytes, dice: Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]


def _damage(world: World, pattern: str, how: Callable[[bytes], bytes], words: str) -> str:
    """Change the newest file of `pattern` while nothing of the sweep runs on this machine."""
    if not any(world.user.runs.glob(pattern)):
        return ""
    if world.on != "slurm":
        world.kill_everything()
    if not (files := sorted(world.user.runs.glob(pattern), key=_age)):
        return "everything died"
    file = files[-1]
    content = file.read_bytes()
    with file.open("r+b") as stream:  # in place: no new file, as a disk does it
        changed = how(content)
        stream.write(changed)
        stream.truncate(len(changed))
        os.fsync(stream.fileno())
    return f"{words}: {file.parent.name}/{file.name}"
