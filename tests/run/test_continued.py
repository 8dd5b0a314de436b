"""A training that continues another begins with its weights; a teacher may be any float network; a training that makes
a quantized network worse says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import tiny
from fakes.statuses import status_of

from suite.methods.lsq import Lsq
from suite.methods.mse import Mse
from suite.quantizers.affine import Grid
from suite.quantizers.lsq import lsq
from suite.ranks import Ranks
from suite.recipe import (
    Calibration,
    Dataset,
    Network,
    Precision,
    Pretrained,
    Recipe,
    Sgd,
    Training,
    over_ranks,
)
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import read_events, read_outcome
from suite.run.stage import run
from suite.run.start import load_trained
from suite.steps import Distillation
from suite.sweeps.stored import find_stages, save_sweep

SGD = Sgd(1, 100, 0.05, pad=1, flip=False, precision=Precision("O2", "bfloat16"))
TINY = Network(f"{Path(tiny.__file__)}:network")
START = Training(TINY, Dataset("digits", size=8), replace(SGD, epochs=5))
TEACHER = replace(START, seed=1, dataset=Dataset("digits", (0.3,) * 3, (0.4,) * 3, size=8))
WIDE = Recipe(START, Lsq(4, 4, feed=replace(SGD, lr=2.0), calibration=Calibration(64, 64)))
METHOD = Lsq(2, 2, feed=replace(SGD, lr=0.01), calibration=Calibration(64, 64))
NARROW = Recipe(START, replace(METHOD, distillation=Distillation(teacher=TEACHER)), continues=WIDE)


def test_a_narrower_training_goes_on_from_a_wider_one_and_learns_from_another_network(tmp_path: Path) -> None:
    folders = Folders(tmp_path, Path("unused"))
    save_sweep(tmp_path, "chain", {}, [START, TEACHER, WIDE, NARROW])
    (narrow,) = find_stages(tmp_path, [NARROW.key])
    assert narrow == NARROW and narrow.needs == (START, WIDE, TEACHER)
    for stage in (START, TEACHER, WIDE, narrow):
        run(stage, Ranks(), folders)
    saved = torch.load(tmp_path / WIDE.key / "checkpoint.pt", weights_only=True)
    trained = load_trained(WIDE, folders)
    latent = trained.get_parameter("layer2.0.conv2.weight")
    baked = saved["model"]["layer2.0.conv2.layer.weight"]
    scale = (baked[baked != 0].abs().min()).float()
    assert len(latent.unique()) > 500 and len(baked.unique()) <= 16
    assert torch.allclose(lsq(latent, scale, Grid(4), 0.0), baked)
    assert torch.equal(trained.get_buffer("bn1.running_mean"), saved["model"]["bn1.running_mean"])
    # That learning rate makes it worse than its ranges by calibration were.
    events, outcome = read_events(tmp_path / WIDE.key), read_outcome(tmp_path / WIDE.key)
    assert outcome is not None
    start = next(e["values"]["top1"] for e in events if e.get("step") == 0 and "top1" in e["values"])
    assert outcome["start_top1"] == start > outcome["top1"]
    (worse,) = (event for event in events if event["event"] == "below_start")
    assert (worse["epoch"], worse["top1"], worse["start_top1"]) == (1, outcome["top1"], start)
    assert status_of(WIDE, tmp_path).below_start == pytest.approx(start - outcome["top1"])


def test_what_it_continues_and_who_teaches_is_in_key_name_and_parameters() -> None:
    plain = Recipe(START, METHOD)
    taught, going_on = (
        Recipe(START, replace(METHOD, distillation=Distillation(teacher=TEACHER))),
        Recipe(START, METHOD, continues=WIDE),
    )
    assert len({one.key for one in (plain, taught, going_on)}) == 3
    assert "continues lsq w4a4" in going_on.name and "continues" not in plain.name
    assert "lr 2.0" in str(going_on.params["continues"]) and "continues" not in plain.params
    assert TEACHER.name in str(taught.params["distillation"])
    assert json.dumps(going_on.params) == json.dumps(replace(going_on).params)
    two = over_ranks(NARROW, 2)
    assert isinstance(two, Recipe) and [stage.world_size for stage in (two, *two.needs)] == [2] * 4


def test_what_cannot_be_continued_or_teach_is_refused() -> None:
    with pytest.raises(SuiteError, match="continues is for a training"):
        Recipe(START, METHOD, continues=Recipe(START, Mse()))
    with pytest.raises(SuiteError, match="continues is for a training"):
        Recipe(START, Mse(), continues=WIDE)
    with pytest.raises(SuiteError, match="of its own float network"):
        Recipe(TEACHER, METHOD, continues=WIDE)
    with pytest.raises(SuiteError, match="folded"):
        Recipe(START, METHOD, batch_norm="folded", continues=WIDE)
    other = Pretrained(TINY, Dataset("cifar10"), "weights.pt", "0" * 64)
    with pytest.raises(SuiteError, match="of cifar10 at 32 pixels with 10 classes"):
        Recipe(START, replace(METHOD, distillation=Distillation(teacher=other)))
