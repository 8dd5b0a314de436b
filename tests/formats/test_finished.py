"""The public interface: what `suite` lists is there, and suite.load() gives the network that its run evaluated."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakes import ROOT
from fakes.trainings import QUICK

import suite
from suite import recipe as types
from suite.data import datasets
from suite.methods.amax import Amax
from suite.ranks import Ranks
from suite.recipe import Calibration, Recipe, plan
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import read_outcome
from suite.run.stage import run
from suite.sweeps.stored import save_sweep
from suite.train.evaluate import evaluate


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    public = {name: getattr(suite, name) for name in suite.__all__}
    assert all(inspect.getdoc(value) for value in public.values())
    assert all(value is getattr(types, name) for name, value in public.items() if inspect.isclass(value))
    with pytest.raises(AttributeError, match="has no attribute 'recipes'"):
        _ = suite.recipes


def test_the_recipe_types_come_without_torch() -> None:
    code = "import sys; from suite import Recipe, Training; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_load_gives_the_networks_that_the_runs_evaluated(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path)
    recipe = Recipe(QUICK, Amax(3, 3, Calibration(images=64, batch=32)))
    save_sweep(tmp_path, "own", {}, plan([recipe]))
    with pytest.raises(SuiteError, match="is not done yet; run it first"):
        suite.load(recipe.key, runs=tmp_path, data=tmp_path)
    test = datasets.load(QUICK.dataset, "test", tmp_path, torch.device("cpu"))
    for stage in (QUICK, recipe):
        run(stage, Ranks(), folders)
        model = suite.load(stage.key[:10], runs=tmp_path, data=tmp_path)
        *_, score = evaluate(model, test, Ranks())
        outcome = read_outcome(tmp_path / stage.key)
        assert not model.training and outcome
        assert (outcome["loss"], outcome["correct"]) == (score.loss, score.packed)  # type: ignore[union-attr]
    with pytest.raises(SuiteError, match="no stage has key 'ffff'"):
        suite.load("ffff", runs=tmp_path, data=tmp_path)
