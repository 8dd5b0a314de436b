"""`suite latency KEY...`: recipes and their float networks in every runtime, with their answers."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from suite.export import agreement
from suite.export.runtimes import PACKAGES, Array, Engine, Exported, engine, why_no_precision, why_not
from suite.formats.rebuild import check_on_grids, rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.measure.timing import interleaved, machine, median_interval, write
from suite.recipe import Recipe, Stage
from suite.recipe.errors import SuiteError, check_choice
from suite.recipe.words import counted
from suite.record.files import Folders
from suite.run.float_stage import load_float

FOLDER = "latency"
"""Of the runs folder, where the records are."""


@dataclass(frozen=True)
class Asked:
    """What to measure. threads: of each runtime. seconds: on the clock for each engine, about. images: of the test
    split, evenly spread, whose answers are counted. runtimes: none for all that are installed.

    Raises SuiteError for a value that cannot be asked for.
    """

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
    in the runs folder, and the record. `doing` is called with what is being done.

    A runtime that was not named and does not take a network is skipped for it, with its reason. Raises SuiteError as
    `export` does, where a runtime that was named does not take a network, and where none is installed; nothing is
    written then.
    """
    usable, skipped = usable_runtimes(asked)
    networks, images, labels = _networks(stages, folders, asked, doing)
    rows: list[dict[str, Any]] = []
    for batch in asked.batches:
        engines = made(networks, usable, skipped, batch, asked.threads, doing, asked.runtimes)
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
    return write(record, folders.runs / FOLDER), record


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
    named: Collection[str] = (),
) -> list[Engine]:
    """An engine of each network, runtime and precision; why there is none is added to `skipped`. named: the runtimes
    that were asked for by name.

    Raises SuiteError where one of those does not take a network, and where no runtime takes any.
    """
    engines = []
    for network in networks:
        for runtime in runtimes:
            for precision in network.precisions:
                if reason := why_no_precision(runtime, precision):
                    skipped[f"{runtime} {precision}"] = reason
                    continue
                doing(f"{network.name} for {runtime}, {precision}, batch {batch}")
                try:
                    engines.append(engine(network, runtime, precision, batch, threads))
                except SuiteError as error:
                    if runtime in named and precision != "bfloat16":  # which no command asks for
                        raise
                    skipped[f"{runtime} {network.name}, {precision}"] = str(error)
    if not engines:
        raise SuiteError(
            "no runtime takes these networks: " + "; ".join(f"{n}: {r}" for n, r in skipped.items())
        )
    return engines


def timed(
    engines: Sequence[Engine], x: Array, seconds: float, doing: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each engine: the median milliseconds of a call on `x`, its 95 % interval, and processor time."""
    runs = [partial(one.run, x) for one in engines]
    samples = interleaved(runs, seconds, lambda words: doing(f"batch {len(x)}, {words}"))
    return [_row(one, len(x), *of_one) for one, of_one in zip(engines, samples, strict=True)]


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
    doing(
        f"{one.network.name} in {one.runtime}, {one.precision}: the answers to {counted(len(images), 'image')}"
    )
    right: NDArray[np.bool_] = one.answers(iter([images]), len(images)) == labels
    return right


def _name(one: Engine) -> tuple[str, str, str]:
    return one.network.key, one.runtime, one.precision
