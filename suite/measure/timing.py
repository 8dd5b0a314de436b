"""Timing calls beside each other: interleaved, warmed up, on stated threads, with the machine on record.

A round calls everything once, in an order that moves on by one, so that what else the machine does meets all alike.
The median of the calls is given with the 95 % interval of its order statistics. Processor time stands beside the time
on the clock: where the clock shows more, other processes had the cores meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suite.export.runtimes import versions
from suite.ranks import CPU
from suite.recipe.errors import SuiteError
from suite.record.files import write_json
from suite.record.provenance import provenance

FORMAT = 1
LEAST_ROUNDS, MOST_ROUNDS = 7, 200
WARM_UP = 2
"""Calls of each engine before the first round."""
QUIET = 0.9
"""The least share of the clock that a process alone on its cores is computing."""

Samples = tuple[list[float], list[float]]
"""Milliseconds of each call: on the clock, and of the processor."""


def interleaved(
    runs: Sequence[Callable[[], Any]], seconds: float, doing: Callable[[str], None]
) -> list[Samples]:
    """The samples of each of `runs`, which take about so many seconds each; `doing` is called with the round."""
    for run in runs:
        for _ in range(WARM_UP):
            run()
    samples: list[Samples] = [([], []) for _ in runs]
    began, done, rounds = time.monotonic(), 0, MOST_ROUNDS
    while done < rounds:
        for at in range(len(runs)):
            at = (at + done) % len(runs)
            clock, processor = samples[at]
            used, start = time.process_time(), time.perf_counter()
            runs[at]()
            clock.append(1000 * (time.perf_counter() - start))
            processor.append(1000 * (time.process_time() - used))
        done += 1
        a_round = (time.monotonic() - began) / done
        rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(seconds * len(runs) / a_round)))
        doing(f"round {done} of {rounds}")
    return samples


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, low, high): the widest order statistics between which the true median lies in 95 % of samples; of fewer
    than 6 values the extremes, which hold it more rarely.

    >>> median_interval([5, 1, 2, 3, 4, 7, 6])
    (4.0, 1.0, 7.0)
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    below = max(1, int(binom.ppf(0.025, n, 0.5)))
    return float(np.median(ordered)), float(ordered[below - 1]), float(ordered[n - below])


def machine(threads: int) -> dict[str, Any]:
    """Where it was measured: processor, its flags, clocks, versions, load, and of what code."""
    facts = provenance(CPU)
    return {
        "format": FORMAT,
        "time": time.time(),
        "device": facts["device"].rpartition(",")[0],
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "cpu_flags": facts["cpu_flags"],
        "clocks": clocks(),
        "load_average": os.getloadavg()[0],
        "commit": facts["commit"],
        "dirty": facts["dirty"],
        "versions": versions(facts),
    }


def clocks() -> dict[str, Any]:
    """MHz of the cores as the system shows them now, and the governor; what it does not say is left out."""
    found: dict[str, Any] = {}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    rates = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    if rates:
        found["mhz"] = [min(rates), max(rates)]
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.exists():
        found["governor"] = governor.read_text().strip()
    return found


def disturbed(rows: Sequence[Mapping[str, Any]], threads: int) -> str:
    """A warning where other processes had the cores while `rows` were measured; else empty."""
    shares = [row["processor_ms"] / row["median_ms"] / threads for row in rows]
    share = float(np.median(shares)) if shares else 1.0
    if share >= QUIET:
        return ""
    return (
        f"other processes had the cores: this one computed {share:.0%} of the time on the clock; compare processor "
        f"times, or measure again on an idle machine"
    )


def write(record: dict[str, Any], folder: Path) -> Path:
    """Into a file of its own in `folder`, named by its time. Raises SuiteError where there is no room."""
    file = folder / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(record['time']))}-{os.getpid()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, file)
    except OSError as error:
        raise SuiteError(
            f"{file} cannot be written: {error.strerror}; free some space, or give another --runs"
        ) from error
    return file
