"""Waiting for an event, with a limit that this machine sets: how slow it is, is measured once a run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache

STANDARD_SECONDS = 2.5
"""How long STANDARD takes on the machine for which the seconds of the limits are written."""
STANDARD = """
import torch
torch.set_num_threads(1)
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3))
for _ in range(10):
    model(torch.ones(16, 3, 32, 32)).square().mean().backward()
"""
CHECK_SECONDS = 0.1


@cache
def slowness() -> float:
    """How many times longer this machine, with all that it does beside, takes for STANDARD; 1 on a quick one."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", STANDARD], check=True)
    return max(1.0, (time.monotonic() - began) / STANDARD_SECONDS)


def limit(seconds: float) -> float:
    """What `seconds` on a quick machine may last here."""
    return seconds * slowness()


def until(
    true: Callable[[], bool],
    instead: Callable[[], str] = str,
    seconds: float = 60,
    alive: Callable[[], object] | None = None,
    every: float = CHECK_SECONDS,
) -> None:
    """Wait until it is `true`, checked `every` so many seconds; fail with what is so `instead` when the limit has
    passed. With `alive` the limit counts from when what that gives has last changed: work that goes on may take as
    long as it needs."""
    patience = limit(seconds)
    deadline, last = time.monotonic() + patience, None
    while not true():
        if alive is not None and (now := alive()) != last:
            deadline, last = time.monotonic() + patience, now
        if time.monotonic() >= deadline:
            raise AssertionError(f"not so after {patience:.0f} s: {instead()}")
        time.sleep(every)
