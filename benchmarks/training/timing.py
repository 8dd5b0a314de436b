"""How contenders are timed in turns, and how the waits of a host for its device are counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.training.contenders import CPU

WARMUP = 3
"""Steps at the beginning of each turn that are not counted."""
Walk = Iterator[Any]
"""A training that goes on by one step at each next()."""
Seconds = dict[str, list[float]]
"""Of each contender, one a round."""


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def turn(walk: Walk, steps: int, device: torch.device) -> float:
    """Seconds of `steps` steps, after some that are not counted."""
    for _ in range(WARMUP):
        next(walk)
    wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        next(walk)
    wait(device)
    return time.perf_counter() - start


def race(walks: Mapping[str, Walk], steps: int, rounds: int, device: torch.device = CPU) -> Seconds:
    """The seconds of each contender's turns, after a first round that is not counted."""
    seconds: Seconds = {name: [] for name in walks}
    for number in range(rounds + 1):
        for name in list(walks)[:: -1 if number % 2 else 1]:
            took = turn(walks[name], steps, device)
            if number:
                seconds[name].append(took)
    return seconds


def ratio(seconds: Seconds, name: str, base: str) -> list[float]:
    """How many times as long as `base` a contender took, in each round."""
    return [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]


def show(title: str, seconds: Seconds, steps: int, batch: int, base: str) -> None:
    """Print a race as a table, each contender's time in that of `base`."""
    print(f"\n{title}; batch {batch}, {steps} steps a turn, {len(seconds[base])} rounds")
    print(f"  {'':48}{'ms a step':>10}{'images/s':>10}{'times':>7}   over the rounds")
    for name, took in seconds.items():
        step, times = statistics.median(took) / steps, ratio(seconds, name, base)
        print(
            f"  {name:48}{1000 * step:10.1f}{batch / step:10.0f}{statistics.median(times):7.2f}"
            f"   {min(times):.2f} to {max(times):.2f}"
        )


MARKS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "aten::item",
    "aten::_local_scalar_dense",
    "Memcpy DtoH",
)
"""What a host that waits for its device leaves in a profile; one wait may leave several."""


def host_waits(walk: Walk, steps: int, device: torch.device) -> dict[str, int]:
    """How often each mark is found in the profile of `steps` steady steps."""
    for _ in range(WARMUP):
        next(walk)
    gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    wait(device)
    with profile(activities=[ProfilerActivity.CPU, *gpu]) as profiled:
        with record_function("steady steps"):
            for _ in range(steps):
                next(walk)
        wait(device)  # this wait, and the profiler's own, are not the steps'
    events = list(profiled.events() or [])
    on_host = [event for event in events if event.device_type.name == "CPU"]
    span = next(event.time_range for event in on_host if event.name == "steady steps")
    inside = [event for event in on_host if span.start <= event.time_range.start <= span.end]
    copies = [event for event in events if event.device_type.name != "CPU"]
    return {mark: sum(event.name.startswith(mark) for event in inside + copies) for mark in MARKS}
