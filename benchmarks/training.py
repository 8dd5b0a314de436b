"""What training costs here, beside the sources' way of training and beside torch.ao, in one run.

Times are seconds on the clock around whole steps (data, forward, backward, optimizer). Every round gives each
contender a turn, every second round in reverse, so that a busy machine slows all alike; a turn is some steps that are
not counted and then `--steps` or, where data is loaded, `--epoch-steps` that are. A first round is not counted. What
is told are ratios: of each round, then their median, and in the table their range.

Loading: ours is suite.train.fit, whose images lie on the device as uint8 and are augmented there. The sources' way is
a DataLoader of worker processes over PIL pictures, eager float32 in contiguous memory (on a GPU autocast, the stronger
peer), and meters that read the loss of each step. It is timed to the end of an epoch: starting its workers is
not counted, nor what they have loaded by then.

Steps: the same batches for all, augmented beforehand. QAT is source 001's, 8 bits, symmetric. `sources` runs it with
quantizers as the source wrote them, one autograd operation after another; torch.ao is prepare_qat_fx with the qconfig
of "x86", which fuses BatchNorm and rounds more tensors than ours (the table counts them). Both are float32, as they
come; ours is O2 in bfloat16, and the JSON line divides by it. Divided by ours in O0, like for like, they stand in the
table; so do two more rows, which have their quantizers in the places of ours, all else being ours in O0.

On a GPU (`--parts gpu`): images a second of the compiled fit, in O2; QAT beside float; and how often the host waits
for the device within our steps, as torch.profiler counts. With `--device cpu` that part is rehearsed and says so.

On a CPU of AVX2 (`--parts avx2`): a step in O2, bfloat16, beside one in O0, in a process in which torch and oneDNN use
no more than AVX2, so that torch has no kernels for bfloat16. Where a CPU is no x86, nothing holds it back; the table
names what multiplied.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig, get_default_qat_qconfig_mapping
from torch.ao.quantization.fake_quantize import FakeQuantizeBase
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Indexed

from suite import networks
from suite.data import datasets
from suite.data.images import Images
from suite.methods.qat_symmetric import QatSymmetric
from suite.networks.torchvision_import import torchvision
from suite.process.ranks import Ranks, from_environment
from suite.quantizers.layers import quantize
from suite.quantizers.quantizer import Quantizer
from suite.recipe import Dataset, Network, Precision, Sgd
from suite.recipe.settings import NetworkName
from suite.record.provenance import provenance
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import Insert
from suite.train.bfloat16 import kernels
from suite.train.fit import Step, fit

WARMUP = 3
"""Steps at the beginning of each turn that are not counted."""
CPU = torch.device("cpu")
FULL, HALF = Precision("O0"), Precision("O2", "bfloat16")
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""The environment in which torch takes an x86 CPU for one without AVX-512 and without bfloat16."""
ROOT = Path(__file__).parent.parent
Batch = tuple[Tensor, Tensor]
Walk = Iterator[Any]
"""A training that goes on by one step at each next()."""
Seconds = dict[str, list[float]]
"""Of each contender, one a round."""


def sgd(batch: int, precision: Precision = FULL) -> Sgd:
    """How all contenders train; nothing here depends on the rate, which only must not diverge."""
    return Sgd(epochs=10**6, batch=batch, lr=0.01, precision=precision)


def build(name: str) -> nn.Module:
    """A network for 32x32 images, its random weights the same at every call."""
    torch.manual_seed(0)
    return networks.build(Network(cast(NetworkName, name)))


def with_quantizers(network: nn.Module) -> nn.Module:
    """A copy of `network` as source 001's symmetric method trains it."""
    steps = [step for step in QatSymmetric().steps() if isinstance(step, Insert)]
    return quantized(steps, InMemoryFeed(network))


def subject(count: int, folder: Path | None, device: torch.device) -> Images:
    """`count` images of CIFAR-10, again from the first where they are too few, or of random pixels."""
    if folder is not None:
        whole = datasets.load(Dataset("cifar10"), "train", folder, device)
        assert isinstance(whole, Images)
        index = torch.arange(count, device=device) % len(whole)
        return Images(whole.pixels[index], whole.labels[index], whole.dataset)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return Images(pixels.to(device), labels.to(device), Dataset("cifar10"))


class Repeated:
    """Batches that are ready, again and again, in the place of Images: an epoch without end."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 10**6 * len(self.batches[0][1])

    def train_batches(self, *_: object) -> Iterator[Batch]:
        """As those of Images."""
        return itertools.cycle(self.batches)


def ours(
    model: nn.Module, images: Images | Repeated, how: Sgd, ranks: Ranks, compiled: bool = False
) -> Iterator[Step]:
    """Training as suite/run.py does it; an epoch's end falls to the next one's first step."""
    placed: nn.Module = model.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = fit(placed, cast(Images, images), how, 0, ranks, compiled=compiled)
    return (step for step in steps if not step.epoch_ended)


def sources(
    model: nn.Module,
    batches: Iterable[Batch],
    how: Sgd,
    device: torch.device = CPU,
    half: torch.dtype | None = None,
) -> Iterator[tuple[float, float]]:
    """Training as the sources do it, epoch after epoch; yields what their meters take: loss and top1 of each step."""
    model = model.to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    while True:
        for x, labels in batches:
            with torchs_own_kernels():
                x, labels = x.to(device), labels.to(device)
                with torch.autocast(device.type, dtype=half, enabled=half is not None):
                    logits = model(x)
                    loss = criterion(logits, labels)
                meters = loss.item(), 100 * (logits.argmax(1) == labels).float().mean().item()
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            yield meters


@contextlib.contextmanager
def torchs_own_kernels() -> Iterator[None]:
    """Also where the suite asks for those that give the same bits each time, which the sources do not."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


class Pictures(Indexed[tuple[Any, int]]):
    """Images as torchvision.datasets.CIFAR10 gives them: an array, of which each picture is made anew."""

    def __init__(self, images: Images) -> None:
        self.data: np.ndarray = images.pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.targets = images.labels.tolist()
        transforms = torchvision.transforms
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(images.dataset.mean, images.dataset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def loader(images: Images, batch: int, workers: int) -> Iterable[Batch]:
    """As the sources load."""
    return DataLoader(Pictures(images), batch_size=batch, shuffle=True, num_workers=workers)


class Round(torch.autograd.Function):
    """To the nearest integer, half to even; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        return grad[0]


class Composed(nn.Module):
    """Source 001's symmetric quantizer of 8 bits, in its own operations: autograd keeps what each of them needs.

    Weights (`momentum` None) by the extremes of each output channel, inputs by a moving average of the batches'
    extremes. zero_point is always zero.
    """

    low: Tensor
    high: Tensor
    first: Tensor
    zero_point: Tensor

    def __init__(self, momentum: float | None) -> None:
        super().__init__()
        self.momentum = momentum
        for name in ("low", "high", "first", "zero_point"):
            self.register_buffer(name, torch.zeros(1))

    @torch.no_grad()
    def track(self, x: Tensor) -> None:
        """Take in the extremes of `x`."""
        if self.momentum is None:
            low = high = x
            for dim in (3, 2, 1):
                low, high = torch.min(low, dim, keepdim=True)[0], torch.max(high, dim, keepdim=True)[0]
            self.low, self.high = low, high
        elif self.first == 0:
            self.first.add_(1)
            self.low.add_(x.min())
            self.high.add_(x.max())
        else:
            self.low.mul_(1 - self.momentum).add_(x.min() * self.momentum)
            self.high.mul_(1 - self.momentum).add_(x.max() * self.momentum)

    def forward(self, x: Tensor) -> Tensor:
        self.track(x)
        scale = 127 / torch.max(self.low.abs(), self.high.abs())
        rounded: Tensor = Round.apply(x * scale - self.zero_point)  # type: ignore[no-untyped-call]
        return (torch.clamp(rounded, -128, 127) + self.zero_point) / scale


def replaced(name: str, act: Callable[[], nn.Module], weight: Callable[[], nn.Module]) -> nn.Module:
    """The network with other quantizers in the places of ours: all convolutions, the image left alone."""
    place: Any = quantize
    result: nn.Module = place(build(name), (nn.Conv2d,), lambda first: None if first else act(), weight)
    return result


def composed(name: str) -> nn.Module:
    """The network with the source's quantizers."""
    return replaced(name, partial(Composed, 0.1), partial(Composed, None))


def torch_ao_here(name: str) -> nn.Module:
    """The network with torch.ao's fake quantizers in the places of ours."""
    config = get_default_qat_qconfig("x86")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own default is deprecated
        return replaced(name, config.activation, config.weight)


def torch_ao(name: str) -> nn.Module:
    """The network as torch.ao prepares it: fused, every activation rounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao announces its removal at every call
        example = (torch.zeros(1, 3, 32, 32),)
        prepared: nn.Module = prepare_qat_fx(
            build(name).train(), get_default_qat_qconfig_mapping("x86"), example
        )
    return prepared


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
    """How often each mark stands in the profile of `steps` steady steps."""
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


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = ["cpu", "gpu", "avx2"]
    usual = [part for part in parts if gpu or part != "gpu"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=usual)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="of the part `gpu`")
    parser.add_argument("--data", type=Path, help="a folder with CIFAR-10; without, random pixels")
    parser.add_argument("--threads", type=int, help="default torch's: all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="of a turn on batches that are ready")
    parser.add_argument("--epoch-steps", type=int, default=60, help="of a turn that loads its data")
    parser.add_argument("--batch", type=int, help="default 128, of the part `gpu` 512")
    parser.add_argument("--workers", type=int, default=4, help="of the sources' DataLoader")
    parser.add_argument(
        "--network", default="resnet50", help="of the part `gpu`; the other parts are ResNet-20"
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=["float16", "bfloat16"],
        default=["float16", "bfloat16"],
        help="of the part `gpu`; the sources' autocast and the JSON line take the first",
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default on a GPU only")
    chosen = parser.parse_args(arguments)
    if "gpu" in chosen.parts and chosen.device == "cuda" and not gpu:
        parser.error("no CUDA device here; with --device cpu the part `gpu` is rehearsed")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for, print the tables and, last, one JSON line."""
    chosen = options(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    versions = ", ".join(f"{name} {version}" for name, version in provenance(CPU)["versions"].items())
    print(f"{provenance(CPU)['device']} of {os.cpu_count()} cores; {versions}")
    print(f"CIFAR-10 of {chosen.data}" if chosen.data else "images of random pixels")
    values: dict[str, float] = {}
    if "cpu" in chosen.parts:
        batch = chosen.batch or 128
        values |= loading_on_cpu(batch, chosen.epoch_steps, chosen.rounds, chosen.workers, chosen.data)
        values |= steps_on_cpu(batch, chosen.steps, chosen.rounds, chosen.data)
    if "gpu" in chosen.parts:
        device = torch.device(chosen.device)
        print(provenance(device)["device"])
        values |= on_gpu(chosen, device)
    if "avx2" in chosen.parts:
        values |= on_avx2(chosen)
    print(json.dumps({key: round(value, 4) for key, value in values.items()}))


if __name__ == "__main__":
    main()
