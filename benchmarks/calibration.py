"""What calibration costs and what its ranges are worth, beside torch.ao's observers in one run.

ResNet-20 and ResNet-50 for 32x32 images. Times are CPU seconds on one thread, so that neighbours on the machine count
little, and with --threads above 1 seconds on the clock. Every round runs each peer once, every second round in
reverse; the table shows the median and, of the cost in plain forward passes, the range over the rounds.

ours: one pass and the ranges of five methods at five widths. torch.ao observes the same tensors, each once too; its
HistogramObserver is run once a width, with dst_nbins set to 2^bits (as shipped it searches for 256 bins at every
width). The L2 error is that of the activations of 256 calibration images, which both set out to make small, and of 256
others; each range is put on the same kind of grid for both: affine (0..2^bits - 1 with a zero_point, what
HistogramObserver searches for) and symmetric (narrow, amax).

The weights are random, BatchNorm lived in, and the images drawn with a natural image's falling spectrum. Where
SUITE_TEST_RESNET20 and SUITE_TEST_CIFAR10 name the public checkpoint and the data, ResNet-20 has its weights and both
see real images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import HistogramObserver, MinMaxObserver

from suite import networks
from suite.arithmetic.affine import Grid, fake_quantize
from suite.data import datasets
from suite.networks import checkpoint_files
from suite.quantizers.layers import LAYERS
from suite.ranges.histogram import Histograms, observe
from suite.ranges.histogram_ranges import affine_mse, amax, entropy, mse, percentile, symmetric_grid
from suite.recipe import Calibration, Dataset, Network
from suite.record.provenance import provenance

BITS = (8, 6, 5, 4, 3)
Ranges = dict[str, Tensor]


def our_ranges(seen: Histograms) -> Ranges:
    """All that five methods need at five widths, [layers, widths] each."""
    low, high = affine_mse(seen, BITS)
    found = {find.__name__: find(seen, BITS) for find in (amax, percentile, mse, entropy)}
    return found | {"low": low, "high": high}


Layers = Sequence[tuple[str, nn.Module]]


@torch.no_grad()
def forward(
    model: nn.Module,
    batches: Sequence[Tensor],
    layers: Layers = (),
    watch: Callable[[int, Tensor], Any] = lambda row, x: None,
) -> None:
    """One pass, in which watch(row, x) sees the input `x` of each of the `layers`; it returns `x` or nothing."""
    hooks = [
        module.register_forward_pre_hook(lambda inner, args, row=row: watch(row, args[0]))
        for row, (_, module) in enumerate(layers)
    ]
    for x in batches:
        model(x)
    for handle in hooks:
        handle.remove()


def distinct_layers(model: nn.Module, x: Tensor) -> Layers:
    """The layers whose inputs are different tensors, so that torch.ao too observes each tensor once."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LAYERS)]
    inputs: dict[int, Tensor] = {}

    def note(row: int, x: Tensor) -> None:
        if not any(x is known for known in inputs.values()):
            inputs[row] = x

    forward(model, [x], layers, note)
    return [layers[row] for row in inputs]


def watched(
    model: nn.Module, batches: Sequence[Tensor], layers: Layers, make: Callable[[], nn.Module]
) -> list[Any]:
    """One pass in which an observer of torch.ao sees each layer's input; the observers, as `layers` are ordered."""
    observers = [make() for _ in layers]
    forward(model, batches, layers, lambda row, x: observers[row](x))
    return observers


def histogram_observer(bits: int) -> HistogramObserver:
    """torch.ao's for a grid of 2^bits unsigned integers."""
    result = HistogramObserver(dtype=torch.quint8, quant_min=0, quant_max=2**bits - 1)
    result.dst_nbins = 2**bits
    return result


def by_histogram(model: nn.Module, batches: Sequence[Tensor], layers: Layers) -> Ranges:
    """(low, high) by HistogramObserver, [layers, widths] each: a pass and a search a width."""
    found = []
    for bits in BITS:
        observers = watched(model, batches, layers, partial(histogram_observer, bits))
        found.append(torch.tensor([observer._non_linear_param_search() for observer in observers]))
    low, high = torch.stack(found, dim=2).unbind(1)
    return {"low": low, "high": high}


def by_min_max(model: nn.Module, batches: Sequence[Tensor], layers: Layers) -> Ranges:
    """(low, high) by MinMaxObserver, [layers, 1] each: one pass, no search, the same at every width."""
    observers = watched(model, batches, layers, lambda: MinMaxObserver(dtype=torch.quint8))
    ends = torch.stack([torch.stack([observer.min_val, observer.max_val]) for observer in observers])
    return {"low": ends[:, :1], "high": ends[:, 1:]}


@torch.no_grad()
def l2_ratios(
    model: nn.Module, batches: Sequence[Tensor], layers: Layers, ours: Ranges, theirs: Ranges
) -> dict[str, dict[int, tuple[float, float]]]:
    """Per grid and width: our squared error over torch.ao's, (all layers summed, the worst single layer)."""
    error = torch.zeros(2, 2, len(BITS), len(layers), dtype=torch.float64)  # grid, whose, width, layer
    largest = torch.maximum(theirs["low"].abs(), theirs["high"].abs())

    def measure(row: int, x: Tensor) -> None:
        for width, bits in enumerate(BITS):
            affine, symmetric = Grid(bits, signed=False), symmetric_grid(bits)
            for whose, low, high, top in (
                (0, ours["low"], ours["high"], ours["mse"]),
                (1, theirs["low"], theirs["high"], largest),
            ):
                for number, grid, (scale, zero_point) in (
                    (0, affine, affine.affine(low[row, width], high[row, width])),
                    (1, symmetric, symmetric.symmetric(top[row, width])),
                ):
                    rounded = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
                    error[number, whose, width, row] += float((rounded - x).square().sum(dtype=torch.float64))

    forward(model, batches, layers, measure)
    summed, single = error.sum(3), (error[:, 0] / error[:, 1]).amax(2)
    return {
        name: {
            bits: (float(summed[number, 0, w] / summed[number, 1, w]), float(single[number, w]))
            for w, bits in enumerate(BITS)
        }
        for number, name in ((0, "affine"), (1, "symmetric"))
    }


def pseudo_images(images: int) -> Tensor:
    """float32 [images, 3, 32, 32] of mean 0 and deviation 1: noise whose amplitude falls as 1/frequency."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.fft.rfft2(torch.randn(images, 3, 32, 32, generator=generator))
    frequency = (torch.fft.fftfreq(32)[:, None].square() + torch.fft.rfftfreq(32).square()).sqrt()
    x: Tensor = torch.fft.irfft2(noise / frequency.clamp_min(1 / 32), s=(32, 32))
    x = x + x.mean(1, keepdim=True) * 2  # the colours of an image go together
    x = (x - x.mean()) / x.std()
    return x.contiguous(memory_format=torch.channels_last)


def subject(name: str, images: int) -> tuple[nn.Module, list[Tensor], str]:
    """(model, batches of 128 of `images` to calibrate on and 256 more, what they are)."""
    folder, weights = os.environ.get("SUITE_TEST_CIFAR10"), os.environ.get("SUITE_TEST_RESNET20")
    if folder:
        train = datasets.load(Dataset("cifar10"), "train", Path(folder), torch.device("cpu"))
        x = torch.cat(list(train.calibration_batches(Calibration(images + 256))))
    else:
        x = pseudo_images(images + 256)
    torch.manual_seed(0)
    network = Network(name, "A" if name == "resnet20" else "B")
    if name == "resnet20" and weights:
        model = checkpoint_files.load_weights(network, Path(weights))
    else:
        model = networks.build(network)
        with torch.no_grad():  # BatchNorm's statistics of these images, not of none
            for part in torch.split(x[:256], 64):
                model(part)
    real = "public weights" if name == "resnet20" and weights else "random weights, lived-in BatchNorm"
    model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, list(torch.split(x, 128)), f"{real}, {'CIFAR-10' if folder else 'pseudo-images'}"


PLAIN, PASS, SEARCH, OURS = "plain forward pass", "ours: the pass", "ours: 5 methods x 5 widths", "ours: all"
MIN_MAX, HISTOGRAM = "torch.ao MinMaxObserver, 1 run", f"torch.ao HistogramObserver, {len(BITS)} runs"
Seconds = dict[str, list[float]]


def measure(name: str, images: int, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Print the table of one network; its figures for the JSON line."""
    model, batches, what = subject(name, images)
    calibration, others = batches[: images // 128], batches[images // 128 :]
    layers = distinct_layers(model, calibration[0][:2])
    seconds, found = timed(model, calibration, layers, rounds, clock)
    ratios = {
        step: [a / b for a, b in zip(took, seconds[PLAIN], strict=True)] for step, took in seconds.items()
    }
    speedups = [a / b for a, b in zip(seconds[HISTOGRAM], seconds[OURS], strict=True)]
    print(f"\n{name}: {what}; {images} images, {rounds} rounds, {len(layers)} tensors")
    print(f"  {'':36}{'seconds':>9}{'passes':>9}   over the rounds")
    for step in (PLAIN, PASS, SEARCH, OURS, MIN_MAX, HISTOGRAM):
        low, middle, high = min(ratios[step]), statistics.median(ratios[step]), max(ratios[step])
        print(f"  {step:36}{statistics.median(seconds[step]):9.2f}{middle:9.2f}   {low:.2f} to {high:.2f}")
    print(f"  HistogramObserver at {len(BITS)} widths over ours: {statistics.median(speedups):.1f} times")
    print("  squared error, ours over HistogramObserver's: summed over layers (worst layer)")
    l2 = {}
    for group, chosen in (("calibration", calibration[:2]), ("other", others)):
        l2[group] = l2_ratios(model, chosen, layers, found[OURS], found[HISTOGRAM])
        for grid, ratio in l2[group].items():
            shown = "  ".join(
                f"{bits} bits {whole:.3f} ({worst:.3f})" for bits, (whole, worst) in ratio.items()
            )
            print(f"    {sum(map(len, chosen))} {group} images, {grid}: {shown}")
    return {
        "passes": statistics.median(ratios[OURS]),
        "speedup_vs_torch_ao": statistics.median(speedups),
        "l2_ratio_8bit": l2["calibration"]["affine"][8][0],
        "l2_ratio_4bit": l2["calibration"]["affine"][4][0],
    }


def timed(
    model: nn.Module,
    batches: Sequence[Tensor],
    layers: Layers,
    rounds: int,
    clock: Callable[[], float],
) -> tuple[Seconds, dict[str, Ranges]]:
    """What each step took in each round, every second round in reverse, and the ranges found, rows as `layers`."""
    names = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
    rows = [names.index(name) for name, _ in layers]
    found: dict[str, Ranges] = {}
    seen: list[Histograms] = []

    def our_pass() -> None:
        seen[:] = [observe(model, batches, LAYERS)]

    def our_search() -> None:
        found[OURS] = {key: value[rows] for key, value in our_ranges(seen[0]).items()}

    def peer(step: str, find: Callable[..., Ranges]) -> Callable[[], None]:
        return lambda: found.update({step: find(model, batches, layers)})

    steps: dict[str, Callable[[], None]] = {
        PLAIN: lambda: forward(model, batches),
        PASS: our_pass,
        SEARCH: our_search,
        MIN_MAX: peer(MIN_MAX, by_min_max),
        HISTOGRAM: peer(HISTOGRAM, by_histogram),
    }
    forward(model, batches[:1])
    observe(model, batches[:1], LAYERS)
    seconds: Seconds = {step: [] for step in steps}
    for number in range(rounds):
        # The search needs a pass, so the pass comes first.
        for step in (HISTOGRAM, MIN_MAX, PASS, SEARCH, PLAIN) if number % 2 else steps:
            start = clock()
            steps[step]()
            seconds[step].append(clock() - start)
    seconds[OURS] = [a + b for a, b in zip(seconds[PASS], seconds[SEARCH], strict=True)]
    return seconds, found


def main() -> None:
    """Measure each network, print its table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="256 images instead of 1,024, fewer rounds")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet50"])
    parser.add_argument("--rounds", type=int, help="default 5, of ResNet-50 and with --quick 3")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    clock = time.process_time if chosen.threads == 1 else time.perf_counter
    kind = "CPU seconds" if chosen.threads == 1 else "seconds on the clock"
    images = 256 if chosen.quick else 1024
    print(
        f"torch {torch.__version__}, {provenance(torch.device('cpu'))['device']} of {os.cpu_count()} cores, {kind}"
    )
    results = []
    for name in chosen.networks:
        rounds = chosen.rounds or (3 if chosen.quick or name == "resnet50" else 5)
        results.append(measure(name, images, rounds, clock))
    worst = {key: max(result[key] for result in results) for key in results[0]}
    worst["speedup_vs_torch_ao"] = min(result["speedup_vs_torch_ao"] for result in results)
    print("\nthe worst of the networks, L2 of calibration images on the affine grid:")
    print(json.dumps({key: round(value, 4) for key, value in worst.items()}))


if __name__ == "__main__":
    main()
