"""What a network with quantizers that learn reaches before its training is what calibration alone gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import tiny

from suite.methods.apot import Apot
from suite.methods.dorefa import Dorefa
from suite.methods.lsq import LearnedMethod, Lsq
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Training
from suite.recipe.method import BatchNorm
from suite.record.files import Folders
from suite.record.journal import read_events, read_outcome
from suite.run.stage import run

SGD = Sgd(1, 100, 0.05, pad=1, flip=False, precision=Precision("O0"))
START = Training(Network(f"{Path(tiny.__file__)}:network"), Dataset("digits", size=8), replace(SGD, epochs=5))
STILL = replace(SGD, lr=1e-6, batch=25)
"""Moves no weight; BatchNorm's statistics become those of the quantized network, in 48 steps."""
CALIBRATION = Calibration(256, 64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    found = Folders(tmp_path_factory.mktemp("runs"), Path("unused"))
    run(START, Ranks(), found)
    return found


def ran(
    folders: Folders, method: LearnedMethod, batch_norm: BatchNorm = "kept"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(outcome, events that say that an epoch is below the start)."""
    recipe = Recipe(START, method, batch_norm=batch_norm)
    run(recipe, Ranks(), folders)
    outcome = read_outcome(folders.runs / recipe.key)
    assert outcome is not None
    events = read_events(folders.runs / recipe.key)
    return outcome, [event for event in events if event["event"] == "below_start"]


@pytest.mark.parametrize("kind", [Apot, Dorefa, Pact])
def test_weights_that_a_method_multiplies_are_scored_with_batch_norm_of_their_own(
    folders: Folders, kind: type[LearnedMethod]
) -> None:
    """With the statistics of the float network the start was that of guessing, and no training fell below it."""
    outcome, _ = ran(folders, kind(4, 8, feed=STILL, calibration=CALIBRATION))
    assert outcome["start_top1"] > 20 and abs(outcome["top1"] - outcome["start_top1"]) < 15
    worse, below = ran(folders, kind(4, 8, feed=replace(SGD, lr=50.0), calibration=CALIBRATION))
    assert worse["top1"] < worse["start_top1"]
    assert [event["start_top1"] for event in below] == [outcome["start_top1"]]


def test_epochs_of_a_method_that_hardens_are_judged_when_its_weights_are_on_their_levels(
    folders: Folders,
) -> None:
    bad = replace(SGD, epochs=4, lr=50.0)
    outcome, below = ran(folders, Parq(8, feed=bad, calibration=CALIBRATION, until=0.75))
    assert outcome["top1"] < outcome["start_top1"]
    assert [event["epoch"] for event in below] == [4]


@pytest.mark.parametrize("batch_norm", ["frozen", "re-estimated"])
def test_batch_norm_may_be_frozen_or_estimated_again_after_learning(
    folders: Folders, batch_norm: BatchNorm
) -> None:
    outcome, _ = ran(folders, Lsq(4, 4, feed=STILL, calibration=CALIBRATION), batch_norm)
    assert outcome["start_top1"] > 40 and abs(outcome["top1"] - outcome["start_top1"]) < 15
