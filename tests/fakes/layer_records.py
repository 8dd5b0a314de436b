"""A layers.json by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fakes.runs_folder import Json

NAMES = [
    "conv1",
    *(f"layer{n}.{block}.conv{at}" for n in (1, 2, 3) for block in (0, 1) for at in (1, 2)),
    "linear",
]


def layer(name: str, noise: float | None, width: float = 1.0) -> Json:
    histogram = {"low": -width, "high": width, "counts": [1, 5, 90, 5, 0]}
    span = {"low": [-width, -width / 2], "high": [width / 2, width]}
    record = {"sqnr_db": noise, "range": span, "histogram": histogram}
    unrounded = {"sqnr_db": None, "range": None, "histogram": histogram}
    return {"name": name, "weight": record, "input": record if noise is None or noise > 12 else unrounded}


def keep(runs: Path, what: Json, name: str, content: Any) -> Path:
    folder = runs / what["key"] / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def record(runs: Path, what: Json, noise: float = 20.0, wrong: int = 2, names: list[str] = NAMES) -> None:
    """The artifacts of a run: SQNR that falls by a tenth of a decibel a layer, `wrong` images of 100 taken for the
    class before."""
    recorded = [layer(name, noise - place / 10) for place, name in enumerate(names)]
    if what["params"]["method"] != "float":
        keep(runs, what, "layers.json", {"format": 1, "images": 32, "layers": recorded})
    rows = [{str(true): 100 - wrong, str((true - 1) % 10): wrong} for true in range(10)]
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    keep(runs, what, "confusion.json", {"format": 1, "names": classes, "rows": rows})
