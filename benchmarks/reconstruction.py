"""What a reconstruction costs, beside the authors' schedule done literally, in one run.

Literally: in each step the batch passes the quantized network and the float one up to the unit (QDrop's code computes
a unit's inputs once, the paper's Algorithm 1 says no more than that), 20,000 steps at a learning rate of 1e-3. Ours:
inputs and targets once a unit, which is part of its time, and our default steps and rates. Both numbers of steps are
divided by --scale. Ours doubles its steps until the unit's error is at most the literal one's, and the time of all
these tries counts. Times are CPU seconds on one thread, so that neighbours on the machine count little, and with
--threads above 1 seconds on the clock, which the last line has in every case.

With --weights and --data also: a whole `qdrop` at W4A4 of the public ResNet-20 and its top-1 on the test images.
With --resnet50 instead: what a ResNet-50 for 32x32 images takes, time and memory, from a few iterations of each unit.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from suite import networks
from suite.data import datasets
from suite.methods.qdrop import Qdrop
from suite.networks.checkpoint_files import load_weights
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network
from suite.recipe.settings import IMAGENET_MEAN, IMAGENET_STD
from suite.reconstruction.network_learning import Reconstruction, error_of, values
from suite.reconstruction.unit_learning import Learning, Settings
from suite.reconstruction.units import Unit, run
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import Reconstruct
from suite.train.evaluate import Score, evaluate

Result = TypeVar("Result")

AUTHORS_STEPS, AUTHORS_LR = 20_000, 1e-3
AUTHORS_STEP_LR = 4e-4
"""Theirs is 4e-5, absolute; a step of these networks is about 0.1."""


class PerStep:
    """What a batch gives behind the nodes before a unit, computed anew whenever it is asked for."""

    def __init__(
        self, reconstruction: Reconstruction, model: nn.Module, wanted: object, images: Tensor
    ) -> None:
        self.nodes = [node for part in reconstruction.parts for node in part.nodes]
        self.model, self.wanted, self.images = model, wanted, images
        self.start = reconstruction.parts[0].input
        self.device = images.device

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def __getitem__(self, index: Tensor) -> Tensor:
        return run(self.model, self.nodes, {self.start: self.images[index]}, self.wanted)  # type: ignore[arg-type]


class Continued(PerStep):
    """The unit's target, from the float input that was computed for the same batch."""

    def __init__(self, before: PerStep, unit: Unit) -> None:
        self.before, self.unit = before, unit

    @torch.no_grad()
    def __getitem__(self, index: Tensor) -> Tensor:
        nodes, model = self.unit.nodes, self.before.model
        return run(model, nodes, {self.unit.input: self.before.last}, self.unit.output)  # type: ignore[attr-defined]


class Remembered(PerStep):
    """It keeps its last answer."""

    def __getitem__(self, index: Tensor) -> Tensor:
        self.last = super().__getitem__(index)
        return self.last


@dataclass(frozen=True)
class Spent:
    """Seconds: those that are `counted`, and those on the `clock`."""

    counted: float = 0.0
    clock: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.counted + other.counted, self.clock + other.clock)


class Clock:
    """Counts CPU seconds on one thread, else seconds on the clock."""

    def __init__(self, threads: int) -> None:
        self.now = time.process_time if threads == 1 else time.perf_counter

    def timed(self, action: Callable[[], Result]) -> tuple[Result, Spent]:
        """What it gives, and how long it took."""
        counted, clock = self.now(), time.perf_counter()
        result = action()
        return result, Spent(self.now() - counted, time.perf_counter() - clock)


def literal(made: Reconstruction, unit: Unit, settings: Settings, number: int, images: Tensor) -> Learning:
    """Learn the unit, with a forward pass of all before it in each step."""
    in_float = Remembered(made, made.float, unit.input, images)
    caches = PerStep(made, made.model, unit.input, images), in_float, Continued(in_float, unit)
    return ours(made, unit, settings, number, caches)  # type: ignore[arg-type]


def ours(
    made: Reconstruction, unit: Unit, settings: Settings, number: int, caches: tuple[Tensor, Tensor, Tensor]
) -> Learning:
    """Learn the unit from its caches."""
    learning = Learning(made.model, unit, settings, number)
    learning.install()
    for _ in learning.iterations(caches, {}):
        pass
    learning.harden()
    return learning


def compared(
    network: nn.Module, images: Tensor, wanted: list[str], scale: int, clock: Clock
) -> dict[str, Spent]:
    """What both sides take, over the wanted units of a W4A4 reconstruction; 32 images or more."""
    calibration = Calibration(len(images), min(128, len(images)))
    *steps, reconstruct, _ = Qdrop(4, 4, feed=calibration).steps()
    assert isinstance(reconstruct, Reconstruct)
    plain = Settings(**{name: getattr(reconstruct, name) for name in Settings.__dataclass_fields__})
    total = {"literal": Spent(), "ours": Spent()}
    made = Reconstruction(quantized(steps, InMemoryFeed(network, images)), plain)
    quantized_input = in_float = images
    number = 0
    for part in made.parts:
        for unit in part.units:
            if unit.name in wanted:
                caches, once = clock.timed(partial(made.caches, part, unit, quantized_input, in_float))
                theirs, ours_took = compared_unit(made, unit, number, caches, images, scale, clock)
                total["literal"] += theirs
                total["ours"] += once + ours_took
            number += 1
        quantized_input = values(made.model, part.nodes, part.input, part.output, quantized_input)
        in_float = values(made.float, part.nodes, part.input, part.output, in_float)
    return total


def compared_unit(
    made: Reconstruction,
    unit: Unit,
    number: int,
    caches: tuple[Tensor, Tensor, Tensor],
    images: Tensor,
    scale: int,
    clock: Clock,
) -> tuple[Spent, Spent]:
    """What the literal schedule takes for one unit, and what ours takes to an error that is no larger."""
    plain = made.settings
    authors = replace(plain, lr=AUTHORS_LR, step_lr=AUTHORS_STEP_LR, iterations=AUTHORS_STEPS // scale)
    nearest = error_of(made.model, unit, caches[0], caches[2])
    undone = Learning(made.model, unit, authors, number)
    _, theirs = clock.timed(partial(literal, made, unit, authors, number, images))
    target = error_of(made.model, unit, caches[0], caches[2])
    undone.undo()
    spent, iterations, error = Spent(), max(1, plain.iterations // scale), float("inf")
    while not error <= target:
        settings = replace(plain, iterations=iterations)
        learning, took = clock.timed(partial(ours, made, unit, settings, number, caches))
        spent += took
        error, done = error_of(made.model, unit, caches[0], caches[2]), iterations
        iterations *= 2
        if error > target:
            learning.undo()
    sides = ("literal", authors.iterations, theirs, target), ("ours", done, spent, error)
    words = [f"{side} {steps} steps {took.counted:.1f} s error {end:.4g}" for side, steps, took, end in sides]
    print(f"{unit.name:12} nearest {nearest:.4g}   {'   '.join(words)}", flush=True)
    return theirs, spent


def whole(weights: Path, data: Path, iterations: int, clock: Clock) -> dict[str, float]:
    """Seconds and top-1 of `qdrop` at W4A4, first and last layer of 8 bits, on the public ResNet-20."""
    network = load_weights(Network("resnet20", "A"), weights).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dataset = Dataset("cifar10", IMAGENET_MEAN, IMAGENET_STD)
    train, test = (datasets.load(dataset, split, data, torch.device("cpu")) for split in ("train", "test"))
    method = Qdrop(4, 4, iterations=iterations)
    feed = InMemoryFeed(network, train.calibration_batches(method.feed))
    model, spent = clock.timed(partial(quantized, method.steps(), feed))
    *_, score = evaluate(model, test, Ranks())
    assert isinstance(score, Score)
    seconds = {"seconds_w4a4": round(spent.counted, 1), "clock_seconds_w4a4": round(spent.clock, 1)}
    return {**seconds, "top1_w4a4": score.top1}


def extrapolated(
    network: nn.Module, images: Tensor, counted: int, bfloat16: bool, clock: Clock
) -> dict[str, float]:
    """Of a W4A4 reconstruction from these `images`, with `counted` iterations a unit, 2 or more: the largest memory of
    the process in GiB, and the seconds that the default iterations would take."""
    calibration = Calibration(len(images), min(128, len(images)))
    method = Qdrop(4, 4, iterations=counted, batch=min(32, len(images)), feed=calibration, bfloat16=bfloat16)
    *steps, reconstruct, _ = method.steps()
    assert isinstance(reconstruct, Reconstruct)
    model = quantized(steps, InMemoryFeed(network, images))
    settings = Settings(**{name: getattr(reconstruct, name) for name in Settings.__dataclass_fields__})
    times: dict[str, list[float]] = {}
    began = clock.now()

    def note_time(state: object, part: float, words: str) -> None:
        name = words.partition(",")[0]
        times.setdefault(name, []).append(clock.now())
        if len(times[name]) == counted:
            print(words.rpartition(",")[0], flush=True)

    Reconstruction(model, settings).run(images, None, note_time)
    iterations = sum(
        statistics.median(b - a for a, b in pairwise(found)) for found in times.values() if found[1:]
    )
    once = clock.now() - began - sum(found[-1] - found[0] for found in times.values())
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = round(once + Qdrop().iterations * iterations)
    return {"seconds": seconds, "seconds_once": round(once, 1), "peak_gib": round(gigabytes, 2)}


def summed(total: dict[str, Spent], threads: int) -> dict[str, float]:
    """The last line of the comparison: how much faster ours is, and what was measured on how many `threads`."""
    sides = {name: (round(spent.counted, 1), round(spent.clock, 1)) for name, spent in total.items()}
    return {
        "speedup_vs_literal": round(total["literal"].counted / total["ours"].counted, 2),
        "speedup_on_the_clock": round(total["literal"].clock / total["ours"].clock, 2),
        "threads": threads,
        **{f"seconds_{name}": counted for name, (counted, _) in sides.items()},
        **{f"clock_seconds_{name}": clock for name, (_, clock) in sides.items()},
    }


def main() -> None:
    """Print both; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=256, help="calibration images of the comparison")
    parser.add_argument("--scale", type=int, default=50, help="what both numbers of steps are divided by")
    parser.add_argument("--units", default="layer1.1,layer2.1,layer3.1", help="which units are compared")
    parser.add_argument("--weights", type=Path, help="the public ResNet-20")
    parser.add_argument("--data", type=Path, help="the folder with CIFAR-10")
    parser.add_argument("--iterations", type=int, default=Qdrop().iterations, help="of the whole run, a unit")
    parser.add_argument(
        "--resnet50", type=int, metavar="N", help="N iterations a unit of a ResNet-50, and no other"
    )
    parser.add_argument(
        "--bfloat16", action="store_true", help="its layers multiply in bfloat16 while learning"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = Clock(given.threads)
    torch.manual_seed(0)
    if given.resnet50:
        network = networks.build(Network("resnet50"))
        images = torch.randn(1024, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            network(images[:128])  # for BatchNorm, which is new
        network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        measured = partial(extrapolated, network, images, given.resnet50, given.bfloat16, clock)
        found, spent = clock.timed(measured)
        print(json.dumps({**found, "threads": given.threads, "clock_seconds_measured": round(spent.clock)}))
        return
    if given.weights:
        network = load_weights(Network("resnet20", "A"), given.weights)
    else:
        network = networks.build(Network("resnet20"))
        with torch.no_grad():
            for _ in range(3):
                network(torch.randn(32, 3, 32, 32))
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(given.images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    if given.data:
        dataset = Dataset("cifar10", IMAGENET_MEAN, IMAGENET_STD)
        train = datasets.load(dataset, "train", given.data, torch.device("cpu"))
        images = torch.cat(list(train.calibration_batches(Calibration(given.images, 128))))
    result = summed(compared(network, images, given.units.split(","), given.scale, clock), given.threads)
    if given.weights and given.data:
        result |= whole(given.weights, given.data, given.iterations, clock)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
