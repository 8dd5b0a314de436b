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

from suite.arithmetic.affine import Grid
from suite.formats.rebuild import StageFeed
from suite.learned.lsq import lsq
from suite.methods.lsq import Lsq
from suite.methods.mse import Mse
from suite.quantizers.layers import LAYERS
from suite.ranges.histogram import observe
from suite.ranges.histogram_ranges import mse
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
from suite.recipe.serialize import to_json
from suite.record.files import Folders
from suite.record.journal import read_events, read_outcome
from suite.run.float_stage import images_of, load_float, load_trained
from suite.run.stage import run
from suite.steps import Distillation
from suite.sweeps.stored import find_stages, save_sweep
from suite.sweeps.values import from_json

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


def test_its_inputs_are_calibrated_on_the_network_that_it_continues(tmp_path: Path) -> None:
    folders = Folders(tmp_path, Path("unused"))
    narrow = Recipe(START, METHOD, continues=WIDE)
    for stage in (START, WIDE, narrow):
        run(stage, Ranks(), folders)
    events = read_events(tmp_path / narrow.key)
    assert next(event for event in events if event["event"] == "observed")["shared"] is False
    learned = next(event["values"] for event in events if "learned_layer2_0_conv2_input_scale" in str(event))
    batches = list(images_of(START, "train", folders).calibration_batches(Calibration(64, 64)))
    by_hand = []
    for network in (load_trained(WIDE, folders), load_float(START, folders)):
        seen = observe(network, batches, LAYERS)
        amax = mse(seen, [2], unsigned=True)[seen.names.index("layer2.0.conv2"), 0]
        by_hand.append(float(amax) / 3)
    continued, of_float = by_hand
    assert learned["learned_layer2_0_conv2_input_scale"] == pytest.approx(continued, rel=1e-5)
    assert abs(of_float / continued - 1) > 0.01, "the two networks do not differ, so the test shows nothing"
    again = StageFeed(narrow, folders).histograms(Calibration(64, 64))
    assert torch.equal(again.counts, observe(load_trained(WIDE, folders), batches, LAYERS).counts)


def test_recipes_that_continue_have_another_key_than_when_they_were_calibrated_on_the_float_network() -> None:
    going_on, plain = Recipe(START, METHOD, continues=WIDE), Recipe(START, METHOD)
    record = to_json(going_on)
    assert record["revision"] == 2 and "revision" not in to_json(plain)
    assert from_json(record) == going_on
    with pytest.raises(SuiteError, match="Recipe has revision 2 here, but the record says None"):
        from_json({name: value for name, value in record.items() if name != "revision"})


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
