"""Faults that damage the bytes of a file, as a disk does: each kind of damage to each file that a run relies on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.world import World

Damage = Callable[[bytes, Random], bytes]


def _torn(content: bytes, dice: Random) -> bytes:
    return content[: -dice.randint(2, 40)]


def _truncated(content: bytes, dice: Random) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes, dice: Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "torn": (_torn, "has lost its last bytes"),
    "truncated": (_truncated, "is half as long"),
    "flipped": (_flipped, "has a bit that is another"),
}
FILES = {
    "journal": ("*/events.jsonl", "The newest journal"),
    "state": ("*/resume-*.pt", "The newest saved state"),
    "checkpoint": ("*/checkpoint.pt", "The newest checkpoint of a finished training"),
    "outcome": ("*/outcome.json", "The newest outcome"),
    "array_record": ("slurm/suite-*/array.json", "The newest record of a job array"),
}
"""By name the pattern within the runs folder, and the file in words."""


def damaging(kind: str, which: str) -> Callable[[World, Random], str]:
    """The fault that does this kind of damage to this file, while nothing of the sweep runs on this machine."""
    (how, what), (pattern, file) = DAMAGES[kind], FILES[which]

    def fault(world: World, dice: Random) -> str:
        return _damage(world, pattern, lambda content: how(content, dice), f"{which} {kind}")

    fault.__name__ = f"{kind}_{which}"
    fault.__doc__ = f"{file} {what}."
    return fault


def _damage(world: World, pattern: str, how: Callable[[bytes], bytes], words: str) -> str:
    if not any(world.user.runs.glob(pattern)):
        return ""
    if world.on != "slurm":
        world.kill_everything()
    files = [file for file in world.user.runs.glob(pattern) if file.stat().st_size > 100]
    if not files:
        return "everything died"
    file = max(files, key=_age)
    content = how(file.read_bytes())
    with file.open("r+b") as stream:  # in place: no new file, as a disk does it
        stream.write(content)
        stream.truncate(len(content))
        os.fsync(stream.fileno())
    return f"{words}: {file.parent.name}/{file.name}"


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns
