"""What MLflow gets of a run, read from its run directory: tags, metric points and small files."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.recipe import Recipe, Stage
from suite.record.journal import ARTIFACT
from suite.record.status import Status

LARGEST = 5 * 2**20
"""No file of more bytes becomes an artifact: what is larger belongs on the disk, with its checksum in the journal."""

Point = tuple[str, float, int, int]
"""(metric, value, milliseconds since 1970, step), as MLflow's Metric takes them."""


def points(counted: Sequence[Mapping[str, Any]], after: int) -> list[Point]:
    """Those of the metrics events after event `after`; null is NaN."""
    return [
        (name, math.nan if value is None else value, int(event["time"] * 1000), event["step"])
        for event in counted
        if event["seq"] > after
        for name, value in event["values"].items()
    ]


def tags(now: Status, files: Mapping[str, tuple[int, bytes | str]]) -> dict[str, str]:
    """Where it ran, how it ended and where its checkpoint is; empty what is not so. `files` are its `artifacts`."""
    started: dict[str, Any] = next((e for e in reversed(now.journal) if e["event"] == "started"), {})
    saved = (now.outcome or {}).get("checkpoint")
    saved = saved if isinstance(saved, dict) else {}
    diverged = "the evaluation gave NaN" if now.outcome and now.outcome.get("loss") is None else ""
    return {
        "host": str(started.get("host", "")),
        "slurm_job": str(started.get("job", "")),
        "device": str(started.get("device", "")),
        "mlflow.source.git.commit": str(started.get("commit", "")),
        "attempt": str(now.journal[-1]["attempt"]),
        "cause": _cause(now),
        "error": now.error,
        "diverged": now.error if now.cause == "diverged" else diverged,
        "below_start": f"{now.below_start:.2f} points below calibration alone" if now.below_start else "",
        "damaged_lines": str(now.damaged or ""),
        "artifacts_left_out": left_out({name: content for name, (_, content) in files.items()}),
        "run_directory": str(now.folder),
        "checkpoint": str(now.folder / Path(str(saved.get("file"))).name) if saved else "",
        "checkpoint_bytes": str(saved.get("bytes", "")),
        "checkpoint_sha256": str(saved.get("sha256", "")),
    }


def left_out(files: Mapping[str, bytes | str]) -> str:
    """Those files, by name, that MLflow does not have, with why; what is bytes, it has."""
    return "; ".join(f"{name}: {why}" for name, why in files.items() if isinstance(why, str))


def _cause(now: Status) -> str:
    """Why a run that ended without a result did, in a word or two."""
    if now.state != "stopped":
        return now.cause
    last = now.journal[-1]
    known = {"interrupted": f"stopped by {last.get('signal')}", "cancelled": "cancelled"}
    return known.get(last["event"], "killed: no error recorded")


def role(stage: Stage) -> str:
    """What a run is to its sweep: "training", "pretrained" or "recipe"."""
    return "recipe" if isinstance(stage, Recipe) else type(stage).__name__.lower()


def artifacts(now: Status) -> dict[str, tuple[int, bytes | str]]:
    """By name the small files that the journal lists, and the stage's description: (the number of the event that
    lists it, its content or why it is left out)."""
    listed: dict[str, Mapping[str, Any]] = {}
    for event in now.journal:
        if event["event"] == "artifact":
            listed[str(event.get("file"))] = event
        elif event["event"] == "started" and (now.folder / "stage.json").exists():
            listed["stage.json"] = event  # it is written anew before each attempt
    return {
        path.rpartition("/")[2][:100]: (event["seq"], _content(now.folder, path, event.get("sha256")))
        for path, event in listed.items()
    }


def _content(folder: Path, path: str, digest: object) -> bytes | str:
    """The bytes, or why not. No link is followed: it may lead to what is nobody's business."""
    file = folder / path
    if not re.fullmatch(rf"stage\.json|artifacts/{ARTIFACT}", path):
        return "not in the folder of artifacts"
    try:
        if file.resolve() != file or not file.is_file():
            return "not there"
        if file.stat().st_size > LARGEST:
            return f"{file.stat().st_size / 2**20:.1f} MiB, more than {LARGEST / 2**20:.0f}"
        content = file.read_bytes()
    except OSError as error:
        return f"not readable: {error.strerror}"
    if digest and hashlib.sha256(content).hexdigest() != digest:
        return "not the file that was recorded"
    return content
