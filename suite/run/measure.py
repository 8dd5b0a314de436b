"""The sensitivity of a finished stage's layers, measured afterwards and kept in its run directory.

What was evaluated so far is saved beside it, so that the same command goes on after a stop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from suite.methods.mse import Mse
from suite.ranks import Ranks
from suite.recipe import Recipe, Stage
from suite.recipe.errors import SuiteError
from suite.recipe.planning import float_stage_of
from suite.recipe.serialize import key_of
from suite.record import files
from suite.record.files import Folders
from suite.record.journal import Journal, read_outcome
from suite.record.lease import lock
from suite.run import layer_report
from suite.run.attempt import Attempt
from suite.run.feed import RunFeed
from suite.run.float_stage import images_of
from suite.run.pipeline import quantized, steps_of
from suite.steps import MeasureSensitivity
from suite.steps.measure_sensitivity import around_insert
from suite.stop import Stop

Tick = Callable[[float, str], None]

PART = "sensitivity-part.json"
"""In the run directory, what was evaluated before a stop."""
SAVE_SECONDS = 30.0


def sensitivity(
    stage: Stage, folders: Folders, how: MeasureSensitivity, tick: Tick, stop: Stop | None = None
) -> dict[str, Any]:
    """Measure what rounding each layer of the float network costs, as the method of a recipe rounds it before anything
    learns, and a float stage by the method mse. `how` says at which widths and on how many training images.

    The result becomes the artifact `sensitivity.json` of the stage; that is no further attempt at it. Raises
    SuiteError where the stage is not done, read other images than are there now, or its method has no widths by layer,
    and InterruptedRunError where `stop` asks; what was evaluated until then is not evaluated again.
    """
    folder = folders.runs / stage.key
    if read_outcome(folder) is None:
        raise SuiteError(f"{stage.name} ({stage.key}) is not done yet; run it first")
    images_of(stage, "train", folders)
    recipe = stage if isinstance(stage, Recipe) else Recipe(float_stage_of(stage), Mse())
    before, ranges = around_insert(steps_of(recipe), recipe.method.name)
    with lock(folder) as lease:
        journal = Journal(folder, lease=lease, afterwards=True)
        try:
            how = replace(how, ranges=ranges)
            attempt = Attempt(stage, Ranks(), folders, stop or Stop(), journal)
            feed = _Feed(attempt, recipe, before, tick, f"{recipe.key} {key_of(how)}")
            record = how.measured(quantized(before, feed), feed)
            journal.artifact("sensitivity.json", layer_report.encoded(record))
            (folder / PART).unlink(missing_ok=True)
        finally:
            journal.close()
            (folder / "progress.json").unlink(missing_ok=True)
    return record


class _Feed(RunFeed):
    """That of a run, which leaves no artifact of a step, and the state of what is measured in PART alone. of: what is
    measured and how; the state of anything else is not read."""

    def __init__(self, attempt: Attempt, recipe: Recipe, steps: Any, tick: Tick, of: str) -> None:
        super().__init__(attempt, recipe, steps)
        self.tick, self.of, self.file = tick, of, attempt.journal.folder / PART
        self.saved_at = time.monotonic()

    def saved(self) -> dict[str, Any] | None:
        """What was evaluated before a stop."""
        return _part(self.file, self.of)

    def save(self, state: Callable[[], dict[str, Any]], part: float, doing: str = "") -> None:
        if self.attempt.stop.asked_by or time.monotonic() - self.saved_at > SAVE_SECONDS:
            files.write_json({"of": self.of, "state": state()}, self.file)
            self.saved_at = time.monotonic()
        self.attempt.stop_if_asked()
        self.attempt.journal.progress(doing, part)
        self.tick(part, doing)

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        """The artifacts of the run are there already."""


def _part(file: Path, of: str) -> dict[str, Any] | None:
    try:
        content = json.loads(files.read_bytes(file))
        return dict(content["state"]) if content["of"] == of else None
    except (OSError, ValueError, TypeError, KeyError):  # it is not there, or torn
        return None
