"""Run directories as runs leave them, written by hand."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

Json = dict[str, Any]


# What a run of the published procedure says of itself.
K_SIGMA = {"act_bits": 32, "k": 3.0, "per_layer": False, "batch_norm": "kept"}


QAT = {"act_bits": 8, "ranges_move": True, "running_extreme": False, "batch_norm": "trained"}


def stage(method: str, bits: int, seed: int, start: Json | None = None, **params: Any) -> Json:
    """A stage of a plan, named by its content as the real ones are."""
    shared = {"model": "resnet20", "dataset": "cifar10", "act_bits": bits}
    params = shared | {"seed": seed, "method": method, "weight_bits": bits} | params
    needs = [start["key"]] if start else []
    key = hashlib.sha256(json.dumps([params, needs], sort_keys=True).encode()).hexdigest()[:16]
    name = f"{method} w{params['weight_bits']}a{params['act_bits']} seed {seed}"
    kind = "Recipe" if start else "Training"
    return {"key": key, "name": name, "kind": kind, "params": params, "needs": needs}


def plan(runs: Path, *stages: Json, sweep: str = "small", version: int = 1) -> None:
    """Write the sweep file that lists `stages`."""
    (runs / "sweeps").mkdir(parents=True, exist_ok=True)
    content = {"format": version, "sweep": sweep, "options": {}, "stages": list(stages)}
    (runs / "sweeps" / f"{sweep}.json").write_text(json.dumps(content))


def begin(runs: Path, what: Json, /, *events: Json, **changed: Any) -> Path:
    """Write what a stage leaves when it starts, then `events`."""
    folder = runs / what["key"]
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, **what, "stage": {}, "commit": "0123456789abcdef", "dirty": False}
    content |= {
        "versions": {"torch": "2.13.0", "python": "3.11.15"},
        "device": "AMD EPYC, 1 thread",
        "host": "a",
    }
    (folder / "stage.json").write_text(json.dumps(content | changed))
    journal: list[Json] = [{"event": "started"}, *events]
    lines = (json.dumps({"seq": seq, "time": 1.5, "attempt": 1} | event) for seq, event in enumerate(journal))
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def finish(runs: Path, what: Json, top1: float, /, **changed: Any) -> Path:
    """Write what a finished stage leaves."""
    folder = begin(runs, what, {"event": "finished"})
    outcome = {"key": what["key"], "top1": top1, "top5": 99.5, "loss": 0.3, "images": 10000, "attempt": 1}
    outcome |= {
        "images_per_s": 2500.0,
        "model_size_mb": what["params"]["weight_bits"] * 0.034,
        "seconds": 9.5,
    }
    (folder / "outcome.json").write_text(json.dumps(outcome | changed))
    return folder


def spoil(file: Path, content: Json | str) -> None:
    """Put something else in the place of a file: other fields, a text, a link, a FIFO or too much."""
    if isinstance(content, dict):
        file.write_text(json.dumps(json.loads(file.read_text()) | content))
        return
    file.unlink(missing_ok=True)
    if content == "fifo":
        os.mkfifo(file)
    elif content == "large":
        file.touch()
        os.truncate(file, 2**26 + 1)
    elif content.startswith("/"):
        file.symlink_to(content)
    else:
        file.write_text(content)
