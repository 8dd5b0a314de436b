"""A run of a method whose quantizers learn records each epoch what they learned; a killed one goes on exactly."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes.stopping import StopsAfter
from fakes.trainings import TINY, TINY_IMAGES

from suite.launch import verify_resume
from suite.methods.lsq import Lsq
from suite.ranks import Ranks
from suite.recipe import Calibration, Precision, Recipe, Sgd, Training
from suite.record.files import Folders
from suite.record.journal import read_events
from suite.run.stage import InterruptedRunError, run
from suite.steps import Distillation


def recipe(world_size: int = 1) -> Recipe:
    half = Precision("O2", "bfloat16")
    sgd = Sgd(1, 6, 0.05, pad=1, flip=False, precision=half, world_size=world_size)
    training = Training(TINY, TINY_IMAGES, sgd)
    method = Lsq(4, 4, feed=replace(sgd, epochs=2, lr=0.01), calibration=Calibration(64, 64))
    return Recipe(training, replace(method, distillation=Distillation()))


def test_a_run_records_what_it_learned_and_one_that_is_stopped_ends_with_the_same_bits(
    tmp_path: Path,
) -> None:
    stage = recipe()
    whole, stopped = (
        Folders(tmp_path / "whole", Path("unused")),
        Folders(tmp_path / "stopped", Path("unused")),
    )
    for folders in (whole, stopped):
        run(stage.start, Ranks(), folders)
    run(stage, Ranks(), whole)
    with pytest.raises(InterruptedRunError, match="stopped at epoch"):
        run(stage, Ranks(), stopped, StopsAfter(10))
    run(stage, Ranks(), stopped)
    assert verify_resume.compare(whole.runs / stage.key, stopped.runs / stage.key) == []
    events = read_events(whole.runs / stage.key)
    metrics = [e for e in events if e["event"] == "metrics" and "train_loss" in e["values"]]
    assert [event["step"] for event in metrics] == [1, 2]
    names = {name for name in metrics[0]["values"] if name.startswith("learned_")}
    assert len(names) == 2 * 7 and "learned_layer1_0_conv1_weight_scale" in names
    assert all(metrics[0]["values"][name] != metrics[1]["values"][name] for name in names)
    state = torch.load(whole.runs / stage.key / "checkpoint.pt", weights_only=True)["model"]
    assert state["layer1.0.conv1.input.scale"] > 0 and "layer1.0.conv1.weight.scale" not in state


@pytest.mark.long
def test_two_ranks_that_are_killed_go_on_to_the_same_bits(tmp_path: Path) -> None:
    stage = recipe(world_size=2)
    verdicts = list(
        verify_resume.verify([stage.start, stage], tries=1, seed=int(time.time()), folder=tmp_path)
    )
    assert [verdict.differences for verdict in verdicts] == [(), ()]
    assert sum(verdict.kills for verdict in verdicts) >= 1
