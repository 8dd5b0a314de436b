"""What calibration costs on a GPU: one pass and the ranges of five methods at five widths, in plain forward passes.

    python -m benchmarks.calibration_gpu

As benchmarks.calibration, without torch.ao and without errors; seconds on the clock, until the device has done all.
`--device cpu` rehearses it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.calibration import forward, our_ranges, subject
from benchmarks.training.timing import wait
from suite.quantizers.layers import LAYERS
from suite.ranges.histogram import Histograms, observe
from suite.ranks import CPU, from_environment
from suite.record.provenance import provenance


def passes(name: str, images: int, rounds: int, device: torch.device) -> float:
    """Print what each part took; the median of all in plain forward passes."""
    model, batches, what = subject(name, images)
    model, batches = model.to(device), [x.to(device) for x in batches[: -(-images // 128)]]
    seen: list[Histograms] = []
    parts: dict[str, Callable[[], object]] = {
        "plain forward pass": lambda: forward(model, batches),
        "ours: the pass": lambda: seen.append(observe(model, batches, LAYERS)),
        "ours: 5 methods x 5 widths": lambda: our_ranges(seen[-1]),
    }
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    for number in range(rounds + 1):
        for part, done in parts.items():
            wait(device)
            began = time.perf_counter()
            done()
            wait(device)
            if number:  # the first round is not counted
                seconds[part].append(time.perf_counter() - began)
    print(f"\n{name}: {what}; {images} images, {rounds} rounds")
    for part, took in seconds.items():
        print(f"  {part:30}{statistics.median(took):9.3f} s")
    plain, *ours = seconds.values()
    return float(statistics.median(sum(both) / one for one, *both in zip(plain, *ours, strict=True)))


def main() -> None:
    """Measure each network and print, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet50"])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    chosen = parser.parse_args()
    device = from_environment().device if chosen.device == "cuda" else CPU
    if device.type != chosen.device:
        parser.error("no CUDA device here; --device cpu rehearses it")
    print(provenance(device)["device"])
    found = {name: passes(name, chosen.images, chosen.rounds, device) for name in chosen.networks}
    print(json.dumps({f"{name}_passes": round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
