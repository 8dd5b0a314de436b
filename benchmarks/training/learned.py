"""The part `learned`: a training step of each method whose quantizers learn, beside a float step."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.training.contenders import FULL, Repeated, build, sgd, subject
from benchmarks.training.timing import WARMUP, Walk, race, ratio, show, wait
from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.dorefa import Dorefa
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import LearnedMethod, Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.ranks import Ranks, from_environment
from suite.recipe import Calibration, Damping, Freezing, Precision, Sgd
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import Distillation, TrainOn
from suite.train.distillation import taught_by
from suite.train.fit import Step, fit
from suite.train.oscillation import OscillationControl

METHODS: dict[str, LearnedMethod] = {
    "lsq": Lsq(4, 4),
    "lsq_plus": LsqPlus(4, 4),
    "pact": Pact(4, 4),
    "dorefa": Dorefa(4, 4),
    "apot": Apot(4, 4),
    "ewgs": Ewgs(4, 4),
    "parq": Parq(4),
    "binary_relax": BinaryRelax(4),
    "distillation": Lsq(4, 4, distillation=Distillation()),
    "damping": Lsq(4, 4, damping=Damping()),
    "freezing": Lsq(4, 4, freezing=Freezing()),
}
"""Weights and inputs of 4 bits, of `parq` and `binary_relax` weights alone; the last three are LSQ."""


class AtTheEnd(OscillationControl):
    """Damps and freezes as at the end of a training, where both work in full."""

    def penalty(self, working: nn.Module, part: float) -> Tensor | None:
        """As of the last step."""
        return super().penalty(working, 1.0)

    def after_step(self, working: nn.Module, stepped: nn.Module, part: float) -> None:
        """As of the last step."""
        super().after_step(working, stepped, 1.0)


def on_device(chosen: argparse.Namespace) -> dict[str, float]:
    """The times and the peaks of memory of all methods, over those of the float step."""
    device = torch.device(chosen.device if torch.cuda.is_available() else "cpu")
    ranks = from_environment() if device.type == "cuda" else Ranks(device=device)
    precision = Precision("O2", chosen.dtypes[0]) if device.type == "cuda" else FULL
    compiled = device.type == "cuda" if chosen.compile is None else chosen.compile
    batch, steps, name = chosen.batch or 128, chosen.steps, "resnet20"
    how = sgd(batch, precision)
    batches = list(subject(4 * batch, chosen.data, device).train_batches(how, 0, 0, Ranks()))
    walks: dict[str, Walk] = {"float": walk(build(name), None, batches, how, ranks, compiled)}
    for label, method in METHODS.items():
        walks[label] = walk(build(name), method, batches, how, ranks, compiled)
    peaks = {label: peak_memory(one, device) for label, one in walks.items()}
    seconds = race(walks, steps, chosen.rounds, device)
    words = f"{precision}, {'compiled' if compiled else 'not compiled'}"
    show(f"{device.type.upper()}, {name}, {words}, a training step", seconds, steps, batch, "float")
    print("\n  Peak of memory in a step, above what is held between steps, MB; and in that of float")
    for label, peak in peaks.items():
        print(f"  {label:48}{peak / 1e6:10.1f}{peak / peaks['float']:17.2f}")
    values = {}
    for label in METHODS:
        values[f"learned_{label}_time"] = statistics.median(ratio(seconds, label, "float"))
        values[f"learned_{label}_memory"] = peaks[label] / peaks["float"]
    return values


def walk(
    network: nn.Module,
    method: LearnedMethod | None,
    batches: list[tuple[Tensor, Tensor]],
    how: Sgd,
    ranks: Ranks,
    compiled: bool = False,
) -> Iterator[Step]:
    """A training of `network` as `method` trains it, None in float, on the `batches` again and again."""
    placed: nn.Module = network.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss: Any = None
    control = None
    if method is not None:
        images = torch.cat([x for x, _ in batches])
        feed = InMemoryFeed(placed, images)
        if by := method.distillation:
            loss = taught_by(feed.teacher(by.teacher), by.temperature, by.labels)
        placed = learning(method, feed, Calibration(len(images), how.batch))
        if method.damping or method.freezing:
            control = AtTheEnd(method.damping, method.freezing)
            control.begin(placed)
    ready = cast(Any, Repeated(batches))
    steps = fit(placed, ready, how, 0, ranks, compiled=compiled, loss=loss, control=control)
    return (step for step in steps if not step.epoch_ended)


def learning(method: LearnedMethod, feed: InMemoryFeed, calibration: Calibration) -> nn.Module:
    """The feed's network as the method trains it, before the first step."""
    steps = replace(method, calibration=calibration).steps()
    last = next(number for number, step in enumerate(steps) if isinstance(step, TrainOn))
    return quantized(steps[:last], feed)


def peak_memory(walk: Walk, device: torch.device) -> int:
    """Bytes by which the memory of tensors grows within a step, at most, after some steps that are not measured."""
    for _ in range(WARMUP):
        next(walk)
    wait(device)
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        next(walk)
        wait(device)
        return torch.cuda.max_memory_allocated(device) - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        next(walk)
    results: Any = profiled.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
