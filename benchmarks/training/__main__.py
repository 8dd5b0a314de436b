"""The command: what is asked for is measured, and the last line is one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

import benchmarks.training
from benchmarks.training import learned, network
from benchmarks.training.contenders import CPU
from benchmarks.training.parts import loading_on_cpu, on_avx2, on_gpu, steps_on_cpu
from suite.record.provenance import provenance


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(benchmarks.training.__doc__ or "").splitlines()[0])
    parts = ["cpu", "gpu", "avx2", "network", "learned"]
    usual = ["cpu", "gpu", "avx2"] if gpu else ["cpu", "avx2"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=usual)
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="of the parts `gpu` and `learned`"
    )
    parser.add_argument("--data", type=Path, help="a folder with CIFAR-10; without, random pixels")
    parser.add_argument("--threads", type=int, help="default torch's: all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="of a turn on batches that are ready")
    parser.add_argument("--epoch-steps", type=int, default=60, help="of a turn that loads its data")
    parser.add_argument("--batch", type=int, help="default 128, of the part `gpu` 512")
    parser.add_argument("--workers", type=int, default=4, help="of the sources' DataLoader")
    parser.add_argument(
        "--network", default="resnet50", help="of the parts `gpu` and `network`; the others are ResNet-20"
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
    if "network" in chosen.parts:
        values |= network.on_cpu(chosen)
    if "avx2" in chosen.parts:
        values |= on_avx2(chosen)
    if "learned" in chosen.parts:
        values |= learned.on_device(chosen)
    print(json.dumps({key: round(value, 4) for key, value in values.items()}))


if __name__ == "__main__":
    main()
