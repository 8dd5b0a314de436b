"""What the parts of the benchmark measure; each prints its table and answers its figures for the JSON line."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.ao.quantization.fake_quantize import FakeQuantizeBase

from benchmarks.training.contenders import (
    CPU,
    FULL,
    HALF,
    Composed,
    Repeated,
    build,
    by_any_kernels,
    composed,
    loader,
    ours,
    sgd,
    sources,
    subject,
    torch_ao,
    torch_ao_here,
    with_quantizers,
)
from benchmarks.training.timing import WARMUP, Walk, host_waits, race, ratio, show, wait
from suite.quantizers.quantizer import Quantizer
from suite.ranks import Ranks, from_environment
from suite.recipe import Precision
from suite.train.bfloat16 import kernels

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""The environment in which torch takes an x86 CPU for one without AVX-512 and without bfloat16."""
ROOT = Path(__file__).parent.parent.parent


def counted(model: nn.Module) -> str:
    """How many tensors a network of ours, of the source's or of torch.ao's rounds."""
    kinds = (Quantizer, Composed, FakeQuantizeBase)
    return f"{sum(isinstance(module, kinds) for module in model.modules())} tensors"


def loading_on_cpu(
    batch: int, steps: int, rounds: int, workers: int, folder: Path | None
) -> dict[str, float]:
    """Float training of ResNet-20 with all that loads and augments."""
    images = subject(batch * (WARMUP + steps), folder, CPU)
    mine, theirs = f"ours, {HALF}, in memory", f"sources, float32, {workers} workers"
    walks: dict[str, Walk] = {
        mine: ours(build("resnet20"), images, sgd(batch, HALF), Ranks()),
        theirs: sources(build("resnet20"), loader(images, batch, workers), sgd(batch)),
    }
    seconds = race(walks, steps, rounds)
    show("CPU, ResNet-20, float training with loading", seconds, steps, batch, mine)
    return {"cpu_float_vs_sources": statistics.median(ratio(seconds, theirs, mine))}


def steps_on_cpu(batch: int, steps: int, rounds: int, folder: Path | None) -> dict[str, float]:
    """QAT of ResNet-20 on batches that are ready: ours, the sources' and torch.ao's."""
    name, how = "resnet20", sgd(batch)
    batches = list(subject(4 * batch, folder, CPU).train_batches(how, 0, 0, Ranks()))
    contiguous = [(x.contiguous(), labels) for x, labels in batches]
    walks: dict[str, Walk] = {}

    def enlist(label: str, model: nn.Module, precision: Precision | None) -> str:
        """In our loop at a precision or, with None, in the sources'; what the contender is called."""
        where = f"ours, {precision}" if precision else "sources, float32"
        title = f"{where}: {label}" + ("" if label == "float" else f", {counted(model)}")
        walks[title] = (
            ours(model, Repeated(batches), sgd(batch, precision), Ranks())
            if precision
            else sources(model, contiguous, how)
        )
        return title

    half_float = enlist("float", build(name), HALF)
    half_qat = enlist("QAT", with_quantizers(build(name)), HALF)
    enlist("float", build(name), FULL)
    full_qat = enlist("QAT", with_quantizers(build(name)), FULL)
    enlist("source 001's quantizers", composed(name), FULL)
    enlist("torch.ao's quantizers", torch_ao_here(name), FULL)
    enlist("float", build(name), None)
    source_qat = enlist("source 001's QAT", composed(name), None)
    ao_qat = enlist("torch.ao's QAT", torch_ao(name), None)
    seconds = race(walks, steps, rounds)
    show("CPU, ResNet-20, a training step, times ours in float32", seconds, steps, batch, full_qat)
    for label, theirs in (("source 001", source_qat), ("torch.ao", ao_qat)):
        half, full = (statistics.median(ratio(seconds, theirs, mine)) for mine in (half_qat, full_qat))
        print(f"  {label}'s QAT takes {half:.2f} times ours in {HALF}, {full:.2f} times ours in float32")
    return {
        "cpu_qat_over_float": statistics.median(ratio(seconds, half_qat, half_float)),
        "cpu_qat_vs_composed": statistics.median(ratio(seconds, source_qat, half_qat)),
        "cpu_qat_vs_torch_ao": statistics.median(ratio(seconds, ao_qat, half_qat)),
    }


def half_on_cpu(batch: int, steps: int, rounds: int, folder: Path | None) -> dict[str, float]:
    """Float training of ResNet-20 on batches that are ready: ours in O2 beside ours in O0."""
    batches = list(subject(4 * batch, folder, CPU).train_batches(sgd(batch), 0, 0, Ranks()))
    half, full = f"ours, {HALF}", f"ours, {FULL}"
    walks: dict[str, Walk] = {
        name: ours(build("resnet20"), Repeated(batches), sgd(batch, precision), Ranks())
        for name, precision in ((half, HALF), (full, FULL))
    }
    seconds = race(walks, steps, rounds)
    held = torch.backends.cpu.get_cpu_capability(), kernels(CPU)
    title = "{}, products of bfloat16: {}; ResNet-20, a training step".format(*held)
    show(title, seconds, steps, batch, full)
    return {"cpu_bf16_over_float_avx2": statistics.median(ratio(seconds, half, full))}


def on_avx2(chosen: argparse.Namespace) -> dict[str, float]:
    """`half_on_cpu` in a process held to AVX2: another one, since torch reads the environment once."""
    batch = chosen.batch or 128
    if os.environ.items() >= AVX2.items():
        return half_on_cpu(batch, chosen.steps, chosen.rounds, chosen.data)
    numbers = {
        "threads": torch.get_num_threads(),
        "rounds": chosen.rounds,
        "steps": chosen.steps,
        "batch": batch,
    }
    command = [sys.executable, "-m", "benchmarks.training", "--parts", "avx2"]
    command += [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    command += ["--data", str(chosen.data.absolute())] if chosen.data else []
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | AVX2, stdout=subprocess.PIPE, text=True, check=True
    )
    *tables, last = done.stdout.splitlines()
    print("\n".join(["", *tables]))
    values: dict[str, float] = json.loads(last)
    return values


def on_gpu(chosen: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Training with loading: ours, compiled, in float and QAT, and the sources' way."""
    ranks = from_environment() if device.type == "cuda" else Ranks(device=device)
    compiled = device.type == "cuda" if chosen.compile is None else chosen.compile
    batch, steps = chosen.batch or 512, chosen.epoch_steps
    images = subject(batch * (WARMUP + steps), chosen.data, device)
    theirs = f"sources, autocast {chosen.dtypes[0]}, {chosen.workers} workers"
    loading = loader(images, batch, chosen.workers)
    walks: dict[str, Walk] = {
        theirs: sources(build(chosen.network), loading, sgd(batch), device, getattr(torch, chosen.dtypes[0]))
    }
    for dtype in chosen.dtypes:
        how = sgd(batch, Precision("O2", dtype))
        qat = with_quantizers(build(chosen.network).to(device))
        for label, model in (("float", build(chosen.network)), ("QAT", qat)):
            walks[f"ours, {how.precision}: {label}"] = ours(model, images, how, ranks, compiled)
    half = sgd(batch, Precision("O2", chosen.dtypes[0]))
    freely = ours(build(chosen.network).to(device), images, half, ranks, compiled)
    walks[f"ours, {half.precision}: float, any kernels"] = by_any_kernels(freely)
    for name in list(walks)[1:]:
        began = time.perf_counter()
        for _ in range(2):
            next(walks[name])
        wait(device)
        print(f"  {name}: {time.perf_counter() - began:.1f} s for the first two steps, of which one compiles")
    seconds = race(walks, steps, chosen.rounds, device)
    _, flat, rounding, *_ = walks
    kind = "GPU" if device.type == "cuda" else "rehearsal on the CPU"
    words = "compiled" if compiled else "not compiled"
    show(f"{kind}, {chosen.network}, training with loading, ours {words}", seconds, steps, batch, flat)
    profiled, waits = min(10, steps), 0
    for name in list(walks)[1:]:
        found = host_waits(walks[name], profiled, device)
        waits = max(waits, *found.values())
        print(f"  {name}: host waits in {profiled} steps: {found}")
    prefix = "gpu" if device.type == "cuda" else "rehearsal"
    return {
        f"{prefix}_images_per_second": batch * steps / statistics.median(seconds[flat]),
        f"{prefix}_vs_sources": statistics.median(ratio(seconds, theirs, flat)),
        f"{prefix}_qat_vs_float": statistics.median(ratio(seconds, flat, rounding)),
        f"{prefix}_host_syncs_per_step": waits / profiled,
    }
