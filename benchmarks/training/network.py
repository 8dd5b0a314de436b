"""The part `network`: a ResNet-50 on a CPU, its training, its evaluation, and a whole post-training recipe."""

from __future__ import annotations

import argparse
import ctypes
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from benchmarks.training.contenders import CPU, HALF, Pictures, build, loader, ours, sgd, sources, subject
from benchmarks.training.timing import WARMUP, Walk, race, ratio, show
from suite.data import datasets
from suite.data.images import Images
from suite.methods.mse import Mse
from suite.ranks import M_MMAP_MAX, M_TRIM_THRESHOLD, Ranks, keep_freed_memory
from suite.recipe import Calibration, Dataset, Network, Pretrained, Recipe
from suite.record.files import Folders, sha256
from suite.run.stage import run
from suite.train.evaluate import evaluate

M_MMAP_THRESHOLD = -3
"""Of mallopt, in glibc's malloc.h."""


def on_cpu(chosen: argparse.Namespace) -> dict[str, float]:
    """All three; the recipe only where CIFAR-10 is at hand."""
    batch, steps, name = chosen.batch or 128, chosen.steps, chosen.network
    images = subject(batch * (WARMUP + steps), chosen.data, CPU)
    theirs, mine = f"sources, float32, {chosen.workers} workers", f"ours, {HALF}, in memory"
    walks: dict[str, Walk] = {
        mine: keeping_memory(ours(build(name), images, sgd(batch, HALF), Ranks())),
        theirs: returning_memory(sources(build(name), loader(images, batch, chosen.workers), sgd(batch))),
    }
    seconds = race(walks, steps, chosen.rounds)
    show(f"CPU, {name}, float training with loading", seconds, steps, batch, mine)
    values = {"network_training_vs_sources": statistics.median(ratio(seconds, theirs, mine))}

    mine = "ours, in memory"
    walks = {
        mine: keeping_memory(evaluated(build(name), images, batch)),
        theirs: returning_memory(evaluated_as_sources(build(name), images, batch, chosen.workers)),
    }
    seconds = race(walks, steps, chosen.rounds)
    show(f"CPU, {name}, evaluation with loading", seconds, steps, batch, mine)
    values["network_evaluation_vs_sources"] = statistics.median(ratio(seconds, theirs, mine))
    if chosen.data:
        values["network_recipe_over_evaluation"] = recipe_over_evaluation(
            name, chosen.data, chosen.workers, batch
        )
    return values


def keeping_memory(walk: Walk) -> Walk:
    """With the memory of freed tensors kept, as a worker of the suite has it."""
    while True:
        keep_freed_memory()
        yield next(walk)


def returning_memory(walk: Walk) -> Walk:
    """With freed memory given back as glibc does it in any other process, once its thresholds are at their largest."""
    libc = ctypes.CDLL(None)
    while True:
        libc.mallopt(M_MMAP_MAX, 65_536)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)
        yield next(walk)


def evaluated(model: nn.Module, images: Images, batch: int) -> Walk:
    """Split after split, a batch at a time, as a run evaluates."""
    placed: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    while True:
        yield from evaluate(placed, images, Ranks(), batch)


def evaluated_as_sources(model: nn.Module, images: Images, batch: int, workers: int) -> Iterator[float]:
    """The same with a DataLoader over pictures, eager, in contiguous memory."""
    model.eval()
    pictures = Pictures(images)
    pictures.transform.transforms = pictures.transform.transforms[2:]  # neither cropped nor mirrored
    loading = torch.utils.data.DataLoader(pictures, batch_size=batch, num_workers=workers)
    right = 0
    while True:
        for x, labels in loading:
            with torch.no_grad():
                right += int((model(x).argmax(1) == labels).sum())
            yield right


def recipe_over_evaluation(name: str, data: Path, workers: int, batch: int) -> float:
    """What a whole recipe takes (prepare, observe 1,024 images, ranges, round, evaluate, layer report, record), in the
    time in which the float network answers the test images as the sources evaluate it. Random weights."""
    dataset = Dataset("cifar10")
    test = datasets.load(dataset, "test", data, CPU)
    assert isinstance(test, Images)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "random.pt"
        torch.save(build(name).state_dict(), file)
        start = Pretrained(Network(name), dataset, str(file), sha256(file))
        folders = Folders(Path(place) / "runs", data)
        run(start, Ranks(), folders)
        began = time.perf_counter()
        run(Recipe(start, Mse(8, 8, feed=Calibration(images=1024))), Ranks(), folders)
        recipe = time.perf_counter() - began
    walk = returning_memory(evaluated_as_sources(build(name), test, batch, workers))
    began = time.perf_counter()
    for _ in range(-(-len(test) // batch)):
        next(walk)
    plain = time.perf_counter() - began
    print(
        f"\nCPU, {name}, a recipe of {len(test):,} test images: {recipe:.0f} s; the sources' evaluation: {plain:.0f} s"
    )
    return recipe / plain
