"""layers.json says what each step of a recipe changed in each layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fakes.networks import two_blocks

from suite.methods.best import Best
from suite.ranks import Ranks
from suite.recipe import Calibration, Recipe, Training
from suite.record.files import Folders
from suite.run import stage
from suite.run.in_memory import InMemoryFeed
from suite.run.step_changes import StepChanges
from suite.steps import Bake, Equalize, FoldBatchNorm, Insert, Uniform


def test_a_step_is_named_where_it_changed_a_layer_and_nowhere_else() -> None:
    network = two_blocks()
    feed = InMemoryFeed(network)
    changes, model = StepChanges(network), network
    for step in (Equalize(), FoldBatchNorm(), Insert(Uniform(), Uniform(), 4, 32), Bake()):
        model = step.apply(model, feed)
        changes.applied(step, model)
    assert [change["step"] for change in changes.layers["linear"]] == ["Bake"]
    name = next(
        name for name in changes.layers if name.endswith("conv2")
    )  # BatchNorm takes the scale of conv1
    assert [change["step"] for change in changes.layers[name]] == ["Equalize", "FoldBatchNorm", "Bake"]
    folded, baked = changes.layers[name][1:]
    assert folded["bias_change"] > 0 and "bias_change" not in baked
    assert 0 < baked["weight_change"] < 0.5 and 0.9 < baked["weights_changed"] <= 1


def test_it_measures_the_distance_of_the_weights_and_the_largest_change_of_a_bias() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    changes = StepChanges(network)
    with torch.no_grad():
        network[0].weight.mul_(1.5)  # type: ignore[operator]
        network[0].bias[1] += 0.25  # type: ignore[index]
    changes.applied(Bake(), network)
    (change,) = changes.layers["0"]
    assert change["weight_change"] == pytest.approx(0.5) and change["bias_change"] == pytest.approx(0.25)
    assert change["weights_changed"] == 1 and "input_step" not in change


def test_a_run_records_what_learning_and_correction_changed(tiny_training: Training, tmp_path: Path) -> None:
    recipe = Recipe(tiny_training, Best(3, 3, iterations=2, batch=8, feed=Calibration(8, 8)))
    folders = Folders(tmp_path, tmp_path)
    for one in (tiny_training, recipe):
        stage.run(one, Ranks(), folders)
    record = json.loads((tmp_path / recipe.key / "artifacts" / "layers.json").read_text())
    by_layer = {layer["name"]: [change["step"] for change in layer["steps"]] for layer in record["layers"]}
    assert all(steps[0] == "FoldBatchNorm" for name, steps in by_layer.items() if name != "linear")
    assert all("Reconstruct" in steps for steps in by_layer.values())
    assert any("CorrectBias" in steps for steps in by_layer.values())
