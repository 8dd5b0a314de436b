"""The sensitivity of a finished stage's layers, measured afterwards and kept in its run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from suite.methods.mse import Mse
from suite.ranks import Ranks
from suite.recipe import Recipe, Stage, method_name
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import Journal, read_outcome
from suite.record.lease import lock
from suite.run import layer_report
from suite.run.attempt import Attempt
from suite.run.feed import RunFeed
from suite.run.pipeline import quantized, steps_of
from suite.run.start import images_of
from suite.steps import MeasureSensitivity
from suite.steps.measure_sensitivity import around_insert
from suite.stop import Stop

Tick = Callable[[float, str], None]


def sensitivity(
    stage: Stage, folders: Folders, how: MeasureSensitivity, tick: Tick, stop: Stop | None = None
) -> dict[str, Any]:
    """Measure what rounding each layer of the float network costs, as the method of a recipe rounds it before anything
    learns, and a float stage by the method mse. `how` says at which widths and on how many training images.

    The result becomes the artifact `sensitivity.json` of the stage; that is no further attempt at it. Raises
    SuiteError where the stage is not done, read other images than are there now, or its method has no widths by layer,
    and InterruptedRunError where `stop` asks.
    """
    folder = folders.runs / stage.key
    if read_outcome(folder) is None:
        raise SuiteError(f"{stage.name} ({stage.key}) is not done yet; run it first")
    images_of(stage, "train", folders)
    recipe = stage if isinstance(stage, Recipe) else Recipe(stage, Mse())  # type: ignore[arg-type]
    before, ranges = around_insert(steps_of(recipe), method_name(recipe.method))
    with lock(folder) as lease:
        journal = Journal(folder, lease=lease, afterwards=True)
        try:
            feed = _Feed(Attempt(stage, Ranks(), folders, stop or Stop(), journal), recipe, before, tick)
            record = replace(how, ranges=ranges).measured(quantized(before, feed), feed)
            journal.artifact("sensitivity.json", layer_report.encoded(record))
        finally:
            journal.close()
            (folder / "progress.json").unlink(missing_ok=True)
    return record


class _Feed(RunFeed):
    """That of a run, which leaves no state and no artifact of a step."""

    def __init__(self, attempt: Attempt, recipe: Recipe, steps: Any, tick: Tick) -> None:
        super().__init__(attempt, recipe, steps)
        self.tick = tick

    def save(self, state: Callable[[], dict[str, Any]], part: float, doing: str = "") -> None:
        self.attempt.stop_if_asked()
        self.attempt.journal.progress(doing, part)
        self.tick(part, doing)

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        """The artifacts of the run are there already."""
