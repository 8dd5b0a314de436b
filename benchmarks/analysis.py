"""How long `suite report` takes over many long trainings, and how much memory at its peak.

The runs are written first and are as a real sweep leaves them: a stage, a journal with two metrics events an epoch,
an outcome, and of the first seed, since those of others are never read, the records of LAYERS layers and of which
class was taken for which. Times are seconds on the clock of whole commands, from the start of Python to the prompt;
the peak is the resident memory of that process. The page is then opened in a headless Chromium, where there is one,
and timed there: until it is drawn, and for a sort and a filter of all rows.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suite.record.jsonl import sealed

ROOT = Path(__file__).parent.parent
METHODS = 20
WIDTHS = (8, 6, 5, 4, 3)
LAYERS = 54
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def write_sweep(folder: Path, count: int, epochs: int) -> None:
    """Write `count` finished runs of `epochs` epochs as the sweep `big` into `folder`: METHODS at WIDTHS."""
    stages = []
    seeded, images = random.Random(0), np.random.default_rng(0)
    hard = images.random(10_000)  # each image to all networks alike
    for number in range(count):
        method = "float" if number % METHODS == 0 else f"method_{number % METHODS:02}"
        bits = 32 if method == "float" else WIDTHS[number // METHODS % len(WIDTHS)]
        seed = number // (METHODS * len(WIDTHS))
        params = {"model": "resnet20", "dataset": "cifar10", "method": method, "seed": seed, "epochs": epochs}
        params |= {
            "weight_bits": bits,
            "act_bits": bits,
            "number": number // METHODS % len(WIDTHS) if bits == 32 else 0,
        }
        needs = [] if method == "float" else [_key(seed * METHODS * len(WIDTHS), epochs)]
        name = f"{method} w{bits}a{bits} seed {seed}"
        key, kind = _key(number, epochs), "Recipe" if needs else "Training"
        stages.append({"key": key, "name": name, "kind": kind, "params": params, "needs": needs})
        top1 = 92 - (8 - min(bits, 8)) ** 2 * seeded.random()
        right = hard + 0.05 * images.standard_normal(len(hard)) < top1 / 100
        _write_run(
            folder / key, stages[-1], epochs, 100 * float(right.mean()), seeded, np.packbits(right).tobytes()
        )
        if seed == 0:
            _write_artifacts(folder / key / "artifacts", 6.0 * bits)
    (folder / "sweeps").mkdir(exist_ok=True)
    content = {"format": 1, "sweep": "big", "options": {}, "stages": stages}
    (folder / "sweeps" / "big.json").write_text(json.dumps(content))


def _key(number: int, epochs: int) -> str:
    return hashlib.sha256(f"{number} {epochs}".encode()).hexdigest()[:16]


def _write_run(
    folder: Path, stage: dict[str, Any], epochs: int, top1: float, seeded: random.Random, correct: bytes
) -> None:
    folder.mkdir(parents=True)
    facts = {
        "commit": "0" * 40,
        "dirty": False,
        "device": "NVIDIA H200",
        "host": "node",
        "versions": {"torch": "2.13.0"},
    }
    (folder / "stage.json").write_text(json.dumps({"format": 1, **stage, **facts}))
    lines: list[dict[str, Any]] = [
        {"event": "started"},
        {"event": "data", "split": "test", "sha256": "1" * 64},
    ]
    for epoch in range(1, epochs + 1):
        noise = seeded.random()
        train = {
            "train_loss": 2.3 * 0.98**epoch + 0.1 * noise,
            "train_top1": 90.0,
            "train_images_per_s": 21034.25,
        }
        test = {"top1": top1 - 60 * 0.97**epoch + noise, "top5": 99.0, "loss": 0.4, "images_per_s": 41034.25}
        for values in (train, test | {"model_size_mb": 0.27}):
            lines.append({"event": "metrics", "step": epoch, "values": values})
    lines.append({"event": "finished"})
    events = ({"seq": seq, "time": 1.7e9 + seq, "attempt": 1} | line for seq, line in enumerate(lines, 1))
    (folder / "events.jsonl").write_text("".join(map(sealed, events)))
    outcome = {"format": 1, "key": stage["key"], "attempt": 1, "top1": top1, "top5": 99.0, "loss": 0.4}
    outcome |= {
        "images": 10000,
        "images_per_s": 40000.0,
        "model_size_mb": 0.034 * stage["params"]["weight_bits"],
    }
    outcome |= {"seconds": 2.0 * epochs, "correct": base64.b64encode(correct).decode()}
    (folder / "outcome.json").write_text(json.dumps(outcome))


def _write_artifacts(folder: Path, noise: float) -> None:
    folder.mkdir()
    span = {"low": [-1.5, -0.5], "high": [0.5, 1.5]}
    histogram = {"low": -1.5, "high": 1.5, "counts": [1000 + index for index in range(128)]}
    record = {"sqnr_db": noise, "range": span, "histogram": histogram}
    layers = [{"name": f"layer{index}.conv", "weight": record, "input": record} for index in range(LAYERS)]
    (folder / "layers.json").write_text(json.dumps({"format": 1, "images": 32, "layers": layers}))
    rows = [
        {str(predicted): 900 if predicted == true else 11 for predicted in range(10)} for true in range(10)
    ]
    (folder / "confusion.json").write_text(json.dumps({"format": 1, "names": None, "rows": rows}))


def report(folder: Path) -> tuple[float, float, float]:
    """The seconds of one `suite report big`, those it had a core for itself, and its peak memory in GiB."""
    command = [
        sys.executable,
        "-m",
        "analysis",
        "big",
        "--runs",
        str(folder),
        "--out",
        str(folder / "results"),
    ]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} left with status {process.returncode}")
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def browse(page: Path) -> dict[str, float]:
    """Seconds until the page is loaded and drawn, and for a sort and a filter; empty without a Chromium."""
    if CHROMIUM is None:
        return {}
    from playwright.sync_api import sync_playwright

    timed = (
        "work => {const began = performance.now(); eval(work); document.body.offsetHeight; "
        "return performance.now() - began}"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_context(bypass_csp=True).new_page()
        began = time.perf_counter()
        shown.goto(page.as_uri())
        shown.screenshot()
        found = {"open page": time.perf_counter() - began}
        sort = "document.querySelectorAll('#runs-table button')[4].click()"
        words = (
            "const box = document.getElementById('filter-words'); box.value = 'method_07'; "
            "box.dispatchEvent(new Event('input'))"
        )
        found |= {"sort": shown.evaluate(timed, sort) / 1000, "filter": shown.evaluate(timed, words) / 1000}
        browser.close()
    return found


def spreads(heading: str, rows: Mapping[str, Sequence[float]], digits: int) -> None:
    """Print the median, the least and the most of each row, under a `heading` of the names."""
    print(f"{heading:28s}{'median':>10s}{'least':>10s}{'most':>10s}")
    for name, values in rows.items():
        shown = (statistics.median(values), min(values), max(values))
        print(f"{name:28s}" + "".join(f"{value:10.{digits}f}" for value in shown))


def main() -> None:
    """Print the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sweep(folder, chosen.runs, chosen.epochs)
        measured = [report(folder) for _ in range(chosen.rounds)]
        page = folder / "results" / "big" / "report.html"
        size, in_browser = page.stat().st_size / 2**20, browse(page)
    seconds, busy, peaks = zip(*measured, strict=True)
    print(
        f"{chosen.runs} runs of {chosen.epochs} epochs, {chosen.rounds} rounds, python {platform.python_version()}, "
        f"{os.cpu_count()} cores"
    )
    rows = {"report, seconds": seconds, "of them computing": busy, "peak memory, GiB": peaks}
    spreads("", rows, digits=2)
    print(f"{'page, MiB':28s}{size:10.2f}")
    for name, value in in_browser.items():
        print(f"{name + ', seconds':28s}{value:10.3f}")
    summary = {"report_seconds": statistics.median(seconds), "peak_gib": max(peaks)}
    print(json.dumps({name: round(value, 3) for name, value in summary.items()}))


if __name__ == "__main__":
    main()
