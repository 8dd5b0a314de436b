"""A run that is stopped inside a step goes on inside it, with the same weights; the steps before it are not lost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from fakes.stopping import attempts_of
from fakes.trainings import QUICK

from suite.methods.qat_symmetric import QatSymmetric
from suite.ranks import Ranks
from suite.recipe import Recipe
from suite.recipe.method import Feed, Step
from suite.record.files import Folders
from suite.record.journal import read_events, read_outcome
from suite.run.stage import run
from suite.steps import Bake, TrainOn


@dataclass(frozen=True)
class Shrink(Step):
    """A step that takes long: shrinks the weights `times` times, and saves in between."""

    times: int

    takes_long: ClassVar[bool] = True

    def apply(self, model: Any, feed: Feed) -> Any:
        saved = feed.saved()
        begun = 0
        if saved:
            begun = saved["times"]
            model.load_state_dict(saved["model"])
        with torch.no_grad():
            for done in range(begun + 1, self.times + 1):
                for parameter in model.parameters():
                    parameter.mul_(0.99)
                state = {"times": done, "model": model.state_dict()}
                feed.save(lambda state=state: state, done / self.times)  # type: ignore[misc]
        feed.keep("shrunk.json", {"times": self.times})
        return model


@dataclass(frozen=True)
class TrainedTwice(QatSymmetric):
    """Trains, shrinks, trains again."""

    def steps(self) -> tuple[Step, ...]:
        insert, first, _ = super().steps()
        return insert, first, Shrink(6), TrainOn(self.feed), Bake()


def test_three_long_steps_end_the_same_wherever_the_run_is_stopped(tmp_path: Path) -> None:
    sgd = dataclasses.replace(QUICK.sgd, epochs=1)
    recipe = Recipe(QUICK, TrainedTwice(4, 4, feed=sgd))
    whole, parts = (Folders(tmp_path / name, tmp_path) for name in ("whole", "parts"))
    for folders in (whole, parts):
        run(QUICK, Ranks(), folders)
    run(recipe, Ranks(), whole)
    attempts_made = attempts_of(recipe, parts, checks=5)
    expected, found = (read_outcome(folders.runs / recipe.key) for folders in (whole, parts))
    assert expected and found and attempts_made > 3
    assert (found["loss"], found["correct"]) == (expected["loss"], expected["correct"])
    resumed = [event for event in read_events(parts.runs / recipe.key) if event["event"] == "resumed"]
    assert len(resumed) == attempts_made - 1
    assert (parts.runs / recipe.key / "artifacts" / "shrunk.json").is_file()
