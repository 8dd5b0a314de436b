"""What people look for in MLflow of a run: its configuration, its drop from float, and a description."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.recipe import Recipe, Stage
from suite.record.status import Status
from suite.record.words import is_seed
from suite.track.mlflow_run import MlflowRun, log
from suite.track.run_contents import Point

Z = 1.96
"""Standard errors of a 95 % interval."""


def configuration(stage: Stage) -> str:
    """The name of a stage without its seeds, of a recipe with that of its float stage: that of all runs that are
    averaged."""
    own = re.sub(r"( calibration)? seed \d+| from [0-9a-f]{8}$", "", stage.name)
    return f"{own} from {configuration(stage.start)}" if isinstance(stage, Recipe) else own


def drop(now: Status, start: Status | None) -> dict[str, float]:
    """`drop` of the top-1 of a finished recipe from that of its float stage `start`, in points, and the ends
    `drop_low` and `drop_high` of its 95 % interval, to two digits; empty where one of them has no result.

    The interval is that of other test images, for this one run: paired image by image where both recorded them.
    """
    ours, floats = now.outcome, start.outcome if start else None
    top1, before = ((outcome or {}).get("top1") for outcome in (ours, floats))
    if not isinstance(now.stage, Recipe) or top1 is None or before is None:
        return {}
    found = {"drop": round(before - top1, 2)}
    half = _half_width(ours or {}, floats or {})
    if half is not None:
        found |= {"drop_low": round(before - top1 - half, 2), "drop_high": round(before - top1 + half, 2)}
    return found


def _half_width(ours: Mapping[str, Any], floats: Mapping[str, Any]) -> float | None:
    """Of the interval of a drop, in points."""
    images = ours.get("images")
    if not isinstance(images, int) or images < 1 or images != floats.get("images"):
        return None
    bits = [_bits(outcome) for outcome in (ours, floats)]
    if bits[0] is None or bits[1] is None:
        parts = (outcome["top1"] * (100 - outcome["top1"]) for outcome in (ours, floats))
        return Z * math.sqrt(sum(max(0.0, part) for part in parts) / images)
    gained, lost = (bits[0] & ~bits[1]).bit_count(), (bits[1] & ~bits[0]).bit_count()
    return Z * 100 * math.sqrt(max(0.0, gained + lost - (gained - lost) ** 2 / images)) / images


def _bits(outcome: Mapping[str, Any]) -> int | None:
    """Of each test image, in order, whether it was classified rightly; None where that was not recorded."""
    try:
        return int.from_bytes(base64.b64decode(outcome["correct"]), "big")
    except (KeyError, ValueError, TypeError):
        return None


def drop_points(now: Status, start: Status | None, step: int) -> list[Point]:
    """The metrics of `drop` at `step`, at the time of the run's last event."""
    at = int(now.last["time"] * 1000) if now.last else 0
    return [(name, value, at, step) for name, value in drop(now, start).items()]


def note(now: Status, start: Status | None, start_page: str) -> str:
    """The description of a run, in Markdown: what it is, what came out, and a link to its float run."""
    words = [f"{now.stage.name}.", _about(getattr(now.stage, "method", None))]
    top1 = (now.outcome or {}).get("top1")
    if isinstance(top1, int | float):
        points = drop(now, start).get("drop")
        words.append(f"Top-1 {top1:.2f} %" + ("" if points is None else _beside_float(points)) + ".")
    if start_page and start is not None:
        words.append(f"Its float run: [{start.stage.name}]({start_page})")
    return " ".join(filter(None, words))


def _about(method: Any) -> str:
    """What a method is: the first line of its file, as `suite methods` shows it; of a user's that of the class."""
    module = type(method).__module__
    if module.startswith("suite.methods."):
        doc = sys.modules[module].__doc__
    else:
        doc = None if method is None or module.startswith("suite.") else type(method).__doc__
    return (doc or "").strip().partition("\n")[0]


def _beside_float(drop: float) -> str:
    return f", {abs(drop):.2f} points {'below' if drop >= 0 else 'above'} float"


def sync_verdicts(
    client: Any, runs: Mapping[str, MlflowRun], statuses: Sequence[Status], report: Path
) -> None:
    """Tag the runs that repeat a published top-1 with it and with the verdict, as `published.csv` in the folder
    `report` of the analysis has them; nothing where there is none."""
    found: dict[str, list[tuple[str, str]]] = {}
    try:
        with (report / "published.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["configuration"] and row["metric"] == "top1":
                    text = f"{row['published_label']} ({row['source']}): {float(row['published']):g} %"
                    found.setdefault(_sorted(json.loads(row["configuration"])), []).append(
                        (text, row["verdict"])
                    )
    except (OSError, ValueError, KeyError):
        return
    for now in statuses if found else ():
        own = {
            name: value for name, value in now.stage.params.items() if not is_seed(name) and value is not None
        }
        if pairs := found.get(_sorted(own)):
            numbers, verdicts = zip(*pairs, strict=True)
            tags = {"published": "; ".join(numbers), "verdict": "; ".join(dict.fromkeys(verdicts))}
            log(client, runs[now.stage.key], tags)


def _sorted(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True, default=str)
