"""How long exported networks take, in one process: interleaved, warmed up, on stated threads.

A round calls every engine once, in an order that moves on by one, so that what else the machine does meets all alike.
The median of the calls is given with the 95 % interval of its order statistics. Processor time stands beside the time
on the clock: where the clock shows more, other processes had the cores meanwhile.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from suite.export import agreement
from suite.export.everywhere import integer_everywhere
from suite.export.exporting import check_on_grids, versions
from suite.export.rebuild import rebuilt
from suite.export.runtimes import PACKAGES, Array, Engine, Exported, engine, why_no_precision, why_not
from suite.ranks import CPU
from suite.recipe import Recipe, Stage
from suite.recipe.errors import SuiteError, check_choice
from suite.record.files import Folders, write_json
from suite.record.provenance import provenance
from suite.run.start import load_float

FORMAT = 1
FOLDER = "latency"
"""Of the runs folder, where the records are."""
LEAST_ROUNDS, MOST_ROUNDS = 7, 200
WARM_UP = 2
"""Calls of each engine before the first round."""
QUIET = 0.9
"""The least share of the clock that a process alone on its cores is computing."""


@dataclass(frozen=True)
class Asked:
    """What to measure. threads: of each runtime. seconds: on the clock for each engine, about. images: of the test
    split, evenly spread, whose answers are counted. runtimes: none for all that are installed."""

    batches: tuple[int, ...] = (1, 128)
    threads: int = 1
    seconds: float = 10.0
    images: int | None = 1000
    runtimes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for runtime in self.runtimes:
            check_choice("--runtimes", runtime, tuple(PACKAGES))
        for name, value in (("batch", min(self.batches, default=0)), ("threads", self.threads)):
            if value < 1:
                raise SuiteError(f"--{name} must be 1 or more, got {value}")
        if self.images is not None and self.images < 1:
            raise SuiteError(f"--images must be 1 or more, got {self.images}")
        if not 0 < self.seconds < float("inf"):
            raise SuiteError(f"--seconds must be above 0, got {self.seconds}")


def measure(
    stages: Sequence[Stage], folders: Folders, asked: Asked, doing: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """Measure the recipes, integers everywhere, and the float networks that they start from; the file of the record,
    in the runs folder, and the record. `doing` hears what is being done.

    Raises SuiteError as `export` does, and where no runtime is installed; nothing is written then.
    """
    usable, skipped = usable_runtimes(asked)
    networks, images, labels = _networks(stages, folders, asked, doing)
    rows: list[dict[str, Any]] = []
    for batch in asked.batches:
        engines = made(networks, usable, skipped, batch, asked.threads, doing)
        x = images[:1].expand(batch, -1, -1, -1).contiguous().numpy()
        rows += timed(engines, x, asked.seconds, doing)
        if batch == max(asked.batches):
            right = {_name(one): _right(one, images, labels, doing) for one in engines}
    for row in rows:
        correct = right.get((row["key"], row["runtime"], row["precision"]))
        if correct is not None:
            row |= {"images": len(correct), "top1": 100 * float(correct.mean())}
            row["correct"] = base64.b64encode(np.packbits(correct).tobytes()).decode()
    record = {**machine(asked.threads), "skipped": skipped, "rows": rows}
    return _write(record, folders.runs), record


def usable_runtimes(asked: Asked) -> tuple[tuple[str, ...], dict[str, str]]:
    """(those that can be used, why not the others). Raises SuiteError where one that was named cannot, or none can."""
    reasons = {name: why_not(name) for name in asked.runtimes or PACKAGES}
    if named := [f"{name}: {reasons[name]}" for name in asked.runtimes if reasons[name]]:
        raise SuiteError("; ".join(named))
    usable = tuple(name for name, reason in reasons.items() if not reason)
    if not usable:
        raise SuiteError("no runtime is installed: " + "; ".join(f"{n}: {r}" for n, r in reasons.items()))
    return usable, {name: reason for name, reason in reasons.items() if reason}


def made(
    networks: Sequence[Exported],
    runtimes: Sequence[str],
    skipped: dict[str, str],
    batch: int,
    threads: int,
    doing: Callable[[str], None],
) -> list[Engine]:
    """An engine of each network, runtime and precision; why there is none is added to `skipped`."""
    engines = []
    for network in networks:
        for runtime in runtimes:
            for precision in network.precisions:
                if reason := why_no_precision(runtime, precision):
                    skipped[f"{runtime} {precision}"] = reason
                    continue
                doing(f"{network.name} for {runtime}, {precision}, batch {batch}")
                engines.append(engine(network, runtime, precision, batch, threads))
    return engines


def timed(
    engines: Sequence[Engine], x: Array, seconds: float, doing: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each engine: the median milliseconds of a call on `x`, its 95 % interval, and processor time."""
    for one in engines:
        for _ in range(WARM_UP):
            one.run(x)
    clock: list[list[float]] = [[] for _ in engines]
    processor: list[list[float]] = [[] for _ in engines]
    began, rounds = time.monotonic(), MOST_ROUNDS
    done = 0
    while done < rounds:
        for at in range(len(engines)):
            at = (at + done) % len(engines)
            used, start = time.process_time(), time.perf_counter()
            engines[at].run(x)
            clock[at].append(1000 * (time.perf_counter() - start))
            processor[at].append(1000 * (time.process_time() - used))
        done += 1
        a_round = (time.monotonic() - began) / done
        rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(seconds * len(engines) / a_round)))
        doing(f"batch {len(x)}, round {done} of {rounds}")
    return [_row(one, len(x), *samples) for one, *samples in zip(engines, clock, processor, strict=True)]


def _row(one: Engine, batch: int, clock: list[float], processor: list[float]) -> dict[str, Any]:
    median, low, high = median_interval(clock)
    return {
        "key": one.network.key,
        "name": one.network.name,
        "runtime": one.runtime,
        "precision": one.precision,
        "batch": batch,
        "rounds": len(clock),
        "median_ms": median,
        "low_ms": low,
        "high_ms": high,
        "processor_ms": median_interval(processor)[0],
        "kernels": one.kernels,
    }


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


def _networks(
    stages: Sequence[Stage], folders: Folders, asked: Asked, doing: Callable[[str], None]
) -> tuple[list[Exported], torch.Tensor, NDArray[np.int64]]:
    """The networks, each float one before the recipes that start from it; test images and their labels.

    Raises SuiteError where the recipes are of several data sets.
    """
    found: dict[str, Exported] = {}
    datasets = {stage.start.dataset for stage in stages if isinstance(stage, Recipe)}
    if len(datasets) > 1:
        raise SuiteError("recipes of several data sets were given; measure those of one at a time")
    for stage in stages:
        doing(f"{stage.name}, made again")
        source = rebuilt(stage, folders)
        check_on_grids(source)
        test, start = source.images("test"), source.recipe.start
        example = next(agreement.batches(test, None))[:2]
        if start.key not in found:
            network = load_float(start, folders).eval()
            found[start.key] = Exported(start.key, start.name, network, example, int8=False)
        network, _ = integer_everywhere(source.model, source.calibration())
        found[stage.key] = Exported(stage.key, stage.name, network, example, int8=True)
    images = torch.cat(list(agreement.batches(test, asked.images)))
    labels = test.labels[agreement.every(test, asked.images)].cpu().numpy()
    return list(found.values()), images, labels


def _right(
    one: Engine, images: torch.Tensor, labels: NDArray[np.int64], doing: Callable[[str], None]
) -> NDArray[np.bool_]:
    doing(f"{one.network.name} in {one.runtime}, {one.precision}: the answers to {len(images)} images")
    right: NDArray[np.bool_] = one.answers(iter([images]), len(images)) == labels
    return right


def _name(one: Engine) -> tuple[str, str, str]:
    return one.network.key, one.runtime, one.precision


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


def disturbed(record: dict[str, Any]) -> str:
    """A warning where other processes had the cores while it was measured; else empty."""
    shares = [row["processor_ms"] / row["median_ms"] / record["threads"] for row in record["rows"]]
    share = float(np.median(shares)) if shares else 1.0
    if share >= QUIET:
        return ""
    return (
        f"other processes had the cores: this one computed {share:.0%} of the time on the clock; compare processor "
        f"times, or measure again on an idle machine"
    )


def _write(record: dict[str, Any], runs: Path) -> Path:
    folder = runs / FOLDER
    file = folder / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(record['time']))}-{os.getpid()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, file)
    except OSError as error:
        raise SuiteError(
            f"{file} cannot be written: {error.strerror}; free some space, or give another --runs"
        ) from error
    return file
