"""Whether workers can make the stages of a user's files, tried in a process like theirs: it has copies of these files
alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.launch.environment import worker_environment
from suite.recipe import Dataset, Network, Stage, plan, user_files
from suite.recipe.errors import SuiteError
from suite.recipe.planning import float_stage_of
from suite.recipe.serialize import to_json
from suite.record.files import Folders
from suite.record.waiting import announced
from suite.sweeps.values import from_json

STAGES = "stages.json"
PATIENCE_SECONDS = 600.0
"""How long that process has."""


def check_user_files(stages: Sequence[Stage], folders: Folders) -> None:
    """Raise SuiteError unless a worker can import the user's files that the stages are made of, make their networks
    and load the test images of their data sets. Of files with which a worker began a stage already, that is known."""
    every = {stage.key: to_json(stage) for stage in plan(stages)}
    began = [row for key, row in every.items() if (folders.runs / key / "events.jsonl").is_file()]
    known = user_files.references(began)
    rows = [row for row in every.values() if user_files.references(row) - known]
    if not rows:
        return
    with tempfile.TemporaryDirectory() as place:
        user_files.keep(rows, Path(place))
        (Path(place) / STAGES).write_text(json.dumps(rows))
        command = [sys.executable, "-m", __name__, place, str(folders.data.resolve())]
        # In the working folder of this process, as workers have it, and without its terminal.
        how = {"stdin": subprocess.DEVNULL, "env": worker_environment(), "timeout": PATIENCE_SECONDS}
        try:
            with announced("a process still imports your Python files and makes their networks and images"):
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", **how)  # type: ignore[call-overload]
        except subprocess.TimeoutExpired:
            raise SuiteError(
                f"a process could not import your Python files and make their networks and images in "
                f"{PATIENCE_SECONDS:.0f} s; keep what takes long out of what is imported"
            ) from None
    if done.returncode:
        words = done.stderr.strip() or f"it ended with status {done.returncode}"
        copies = rf"{re.escape(place)}/{user_files.KEPT}/[0-9a-f]+/"
        raise SuiteError(
            f"{re.sub(copies, '', words)}\nThis was in a process that has copies of your Python files alone, as "
            f"workers have: keep other files in the data folder, or in Python, and what a file imports beside it"
        )


def _make(row: dict[str, Any], folder: Path, data: Path, made: set[Network | Dataset]) -> None:
    """Make a stage as a worker does; what is in `made` was made already."""
    user_files.find_kept(row, folder)
    start = float_stage_of(from_json(row))
    if user_files.is_reference(start.network.name) and start.network not in made:
        from suite.networks import build  # which waits for torch

        build(start.network)
    if user_files.is_reference(start.dataset.name) and start.dataset not in made:
        _load_twice(start.dataset, data)
    made |= {start.network, start.dataset}


def _load_twice(dataset: Dataset, data: Path) -> None:
    """Raise SuiteError unless the user's function gives the same test images and labels each time: every rank, every
    recipe and every further attempt asks for them again."""
    from suite.data.arrays import of_loader  # which waits for numpy and torch

    first, again = of_loader(dataset, "test", data), of_loader(dataset, "test", data)
    if any(one.shape != other.shape or (one != other).any() for one, other in zip(first, again, strict=True)):
        raise SuiteError(
            f"{dataset.name} gave other test images or labels the second time; let it draw by a seed of its own, as "
            f"numpy.random.default_rng(0), so that both splits and all processes fit together"
        )


def main(folder: Path, data: Path) -> int:
    """Make the stages that STAGES in `folder` lists; the exit status."""
    made: set[Network | Dataset] = set()
    try:
        for row in json.loads((folder / STAGES).read_text()):
            _make(row, folder, data, made)
    except SuiteError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
