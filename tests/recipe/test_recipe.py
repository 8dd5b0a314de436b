"""Recipes are values with keys; plans put what is needed first."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.methods.amax import Amax
from suite.methods.k_sigma import KSigma
from suite.methods.qat_symmetric import QatSymmetric
from suite.methods.scheme import Scheme
from suite.recipe import (
    Calibration,
    Dataset,
    Network,
    Precision,
    Pretrained,
    Recipe,
    Sgd,
    Stage,
    Training,
    plan,
    serialize,
)
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.steps import MovingPercentile, Uniform
from suite.sweeps import find
from suite.sweeps.stored import find_stages, load_sweep, save_sweep
from suite.sweeps.values import from_json

SGD = st.builds(
    Sgd,
    epochs=st.integers(1, 300),
    batch=st.sampled_from([32, 128, 160]),
    lr=st.floats(1e-4, 1.0),
    nesterov=st.booleans(),
    schedule=st.sampled_from(["steps", "cosine"]),
    milestones=st.lists(st.integers(1, 300), max_size=3).map(tuple),
    precision=st.builds(
        Precision, st.sampled_from(["O0", "O1", "O2", "O3"]), st.sampled_from(["float16", "bfloat16"])
    ),
)
TRAININGS = st.builds(
    Training,
    network=st.builds(Network, st.sampled_from(["resnet20", "resnet56"]), st.sampled_from(["A", "B"])),
    dataset=st.builds(Dataset, st.sampled_from(["digits", "cifar10"])),
    sgd=SGD,
    seed=st.integers(0, 9),
)
METHODS = st.one_of(
    st.builds(KSigma, st.integers(2, 16), st.floats(0.5, 5), st.booleans()),
    st.builds(Amax, st.integers(2, 16), st.integers(2, 16)),
    st.builds(QatSymmetric, st.integers(2, 16), st.integers(2, 16), feed=SGD),
)
RECIPES = st.builds(Recipe, TRAININGS, METHODS)


def training(**changes: Any) -> Training:
    return Training(Network(), Dataset("digits"), Sgd(1, 32, 0.1), **changes)


@given(RECIPES)
def test_a_recipe_comes_back_from_json_with_the_same_key(recipe: Recipe) -> None:
    again = from_json(json.loads(json.dumps(to_json(recipe))))
    assert again == recipe and again.key == recipe.key


@given(RECIPES, RECIPES)
def test_equal_recipes_and_only_they_have_equal_keys(one: Recipe, other: Recipe) -> None:
    assert (one == other) == (one.key == other.key)


@given(TRAININGS)
def test_every_field_of_a_training_changes_the_key_of_its_recipes(stage: Training) -> None:
    keys = {Recipe(stage, Amax()).key}
    for name, value in {"seed": stage.seed + 1, "network": Network("resnet32")}.items():
        keys.add(Recipe(dataclasses.replace(stage, **{name: value}), Amax()).key)
    changes = {"epochs": 301, "lr": 2.0, "momentum": 0.5, "label_smoothing": 0.1, "pad": 3, "world_size": 16}
    for name, value in (changes | {"sync_batch_norm": False, "optimizer": "apex"}).items():
        changed = dataclasses.replace(stage.sgd, **{name: value})
        keys.add(Recipe(dataclasses.replace(stage, sgd=changed), Amax()).key)
    assert len(keys) == 11


def test_progressive_resizing_is_in_the_key_where_it_is_used_and_its_last_epoch_is_whole() -> None:
    usual = Sgd(3, 32, 0.1)
    small = dataclasses.replace(usual, image_sizes=(16, 24))
    stages = [dataclasses.replace(training(), sgd=sgd) for sgd in (usual, small)]
    assert stages[0].key != stages[1].key
    assert "image_sizes" not in stages[0].params and stages[1].params["image_sizes"] == "16,24"
    assert from_json(json.loads(json.dumps(to_json(stages[1])))) == stages[1]
    assert [small.image_size(epoch, Dataset("cifar10")) for epoch in range(3)] == [16, 24, 32]
    with pytest.raises(SuiteError, match="names 3 of 3 epochs; the last must be at the data set's own size"):
        dataclasses.replace(usual, image_sizes=(16, 16, 24))
    for wrong in ([16], (0,), (1.5,), ("16",)):
        with pytest.raises(SuiteError, match="image_sizes must be a tuple of sides in pixels"):
            dataclasses.replace(usual, image_sizes=wrong)  # type: ignore[arg-type]


def test_where_a_checkpoint_lies_is_not_in_the_key_but_its_checksum_is() -> None:
    here = Pretrained(Network(), Dataset("cifar10"), "/here/w.pt", "a" * 64)
    there = dataclasses.replace(here, file="/there/w.pt")
    other = dataclasses.replace(here, sha256="b" * 64)
    assert here.key == there.key != other.key


def test_a_whole_number_in_the_place_of_a_float_makes_the_same_stage_of_the_same_name() -> None:
    def stages(zero: float, one: float) -> list[Stage]:
        sgd = Sgd(6, 32, one, momentum=zero, weight_decay=zero, decay=one)
        start = Training(Network(), Dataset("digits", (zero, zero, zero), (one, one, one)), sgd)
        ranges = Uniform(MovingPercentile(one, momentum=one))
        methods = [KSigma(5, 2 * one), QatSymmetric(feed=sgd), Scheme(inputs=ranges, calibration=None)]
        return [start, *(Recipe(start, method) for method in methods)]

    def shown(stage: Stage) -> str:
        return json.dumps([stage.key, stage.name, stage.params, to_json(stage)])

    assert list(map(shown, stages(0, 1))) == list(map(shown, stages(0.0, 1.0)))


def test_a_sweep_of_a_version_that_distinguished_whole_numbers_from_floats_is_read_with_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stages() -> tuple[Stage, ...]:
        start = Training(Network(), Dataset("digits"), Sgd(6, 32, 1, momentum=0))
        return plan([Recipe(start, KSigma(5, 2))])

    with monkeypatch.context() as patch:
        patch.setattr(serialize, "content_of", lambda value, item: getattr(value, item.name))
        older = [stage.key for stage in stages()]
        save_sweep(tmp_path, "older", {}, stages())
    assert not {*older} & {stage.key for stage in stages()}
    assert [stage.key for stage in load_sweep(tmp_path, "older")] == older
    (alone,) = find_stages(tmp_path, older[1:])
    assert [stage.key for stage in plan([alone])] == older


def test_a_record_with_the_key_of_another_stage_is_read_but_not_run_and_a_key_is_no_path(
    tmp_path: Path,
) -> None:
    stages = plan([Recipe(training(), KSigma(5))])
    save_sweep(tmp_path, "one", {}, stages)
    file, other = tmp_path / "sweeps" / "one.json", "0" * 16
    record = file.read_text()
    assert load_sweep(tmp_path, "one", checked=True) == load_sweep(tmp_path, "one") == stages
    file.write_text(record.replace(stages[1].key, other))
    assert [stage.key for stage in load_sweep(tmp_path, "one")] == [stages[0].key, other]
    with pytest.raises(SuiteError, match=f"the record of '{other}' is not that of its stage"):
        load_sweep(tmp_path, "one", checked=True)
    with pytest.raises(SuiteError, match=f"the record of '{other}' is not that of its stage"):
        find_stages(tmp_path, [other])
    file.write_text(record.replace(stages[0].key, "../0123456789abc"))
    with pytest.raises(SuiteError, match="is not a sweep's record"):
        load_sweep(tmp_path, "one")


def test_a_record_that_cannot_be_read_hides_no_stage_of_another_record(tmp_path: Path) -> None:
    stages = plan([Recipe(training(), KSigma(5))])
    save_sweep(tmp_path, "one", {}, stages)
    (tmp_path / "sweeps" / "folder.json").mkdir()
    assert find_stages(tmp_path, [stages[1].key]) == [stages[1]]
    with pytest.raises(SuiteError, match=r"folder.json cannot be read: "):
        find_stages(tmp_path, ["0" * 16])


def test_keys_do_not_change_by_accident() -> None:
    """Golden: a key that changes here orphans every run directory that users have. Raise a revision instead."""
    assert training(seed=3).key == "ee2f7faa762ac5c2"
    assert Recipe(training(seed=3), KSigma(5)).key == "1d5bf3225cf5e870"


def test_a_raised_revision_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Recipe(training(), KSigma(5)).key
    monkeypatch.setattr(KSigma, "revision", KSigma.revision + 1)
    assert Recipe(training(), KSigma(5)).key != before


def test_a_sweep_of_an_older_revision_is_read_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = plan([Recipe(training(), KSigma(5))])
    save_sweep(tmp_path, "older", {}, stages)
    monkeypatch.setattr(KSigma, "revision", KSigma.revision + 1)
    read = load_sweep(tmp_path, "older")
    assert [(stage.key, stage.name) for stage in read] == [(stage.key, stage.name) for stage in stages]
    with pytest.raises(SuiteError, match="has revision 2 here, but the record says 1; plan the sweep again"):
        load_sweep(tmp_path, "older", checked=True)


@given(st.lists(RECIPES, max_size=8))
def test_a_plan_holds_every_stage_once_and_needs_first(recipes: list[Recipe]) -> None:
    ordered = plan(recipes)
    keys = [stage.key for stage in ordered]
    assert len(keys) == len(set(keys))
    assert {r.key for r in recipes} <= set(keys)
    for place, stage in enumerate(ordered):
        assert all(needed.key in keys[:place] for needed in stage.needs)


@pytest.mark.parametrize(("name", "recipes", "trainings"), [("quick", 82, 2), ("published", 108, 9)])
def test_a_sweep_shares_its_trainings_and_names_each_stage_apart(
    name: str, recipes: int, trainings: int
) -> None:
    listed, _ = find(name).stages([])
    ordered = plan(listed)
    assert (len(listed), len(ordered) - len(listed)) == (recipes, trainings)
    shown = [(stage.name, *(needed.key for needed in stage.needs)) for stage in ordered]
    assert len(set(shown)) == len(shown)


def test_the_published_sweep_is_resnet50_on_cifar10_under_o2_from_three_seeds() -> None:
    stages: list[Stage] = [s for s in plan(find("published").stages([])[0]) if isinstance(s, Training)]
    assert {stage.params["precision"] for stage in stages} == {"O2 float16"}
    assert {stage.params["dataset"] for stage in stages} == {"cifar10"}
    assert {stage.params["seed"] for stage in stages} == {0, 1, 2}
    assert sorted({str(stage.params["model"]) for stage in stages}) == [
        "resnet20",
        "resnet50",
        "resnet50_imagenet",
    ]


def test_feeds_tell_names_apart() -> None:
    feeds = (None, Calibration(), Calibration(images=128), Calibration(batch=32))
    names = [Recipe(training(), Amax(8, 8, feed=feed)).name for feed in feeds]
    assert names[:3] == [
        f"amax w8a8{words} seed 0 from {training().key[:8]}"
        for words in ("", " calibrated", " calibrated 128 images")
    ]
    assert len(set(names)) == 4
    slow, fast = (QatSymmetric(feed=Sgd(1, 128, lr, precision=Precision("O0"))) for lr in (0.001, 0.01))
    assert Recipe(training(), slow).name != Recipe(training(), fast).name


def test_params_say_method_widths_seed_model_and_dataset() -> None:
    params = Recipe(training(seed=1), Amax(4, 8)).params
    expected = {
        "method": "amax",
        "weight_bits": 4,
        "act_bits": 8,
        "seed": 1,
        "model": "resnet20",
        "dataset": "digits",
    }
    assert expected.items() <= params.items()
    start = training(seed=1)
    assert start.name == "train resnet20 digits O2 float16 1 epoch batch 32 lr 0.1 seed 1"
    assert Recipe(start, Amax(4, 8)).name == f"amax w4a8 seed 1 from {start.key[:8]}"
    assert all(isinstance(value, (str, int, float, bool)) for value in params.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset("a/mnist"), "dataset 'a/mnist' is unknown; use one of digits, cifar10"),
        (lambda: Network("vgg16"), "model 'vgg16' is unknown; use one of resnet20"),
        (lambda: Network("resnet50", "A"), "shortcut 'A' does not exist for resnet50; use 'B'"),
        (lambda: Network(classes=1), "classes must be 2 or more, got 1"),
        (lambda: Precision("O4"), "precision level 'O4' is unknown; use one of O0, O1, O2, O3"),  # type: ignore[arg-type]
        (lambda: Sgd(0, 32, 0.1), "Sgd.epochs must be a whole number from 1 on, got 0"),
        (lambda: Sgd(1, 32, -0.1), "Sgd.lr must be above 0, got -0.1"),
        (lambda: Sgd(1.5, 32, 0.1), "Sgd.epochs must be a whole number from 1 on, got 1.5"),  # type: ignore[arg-type]
        (lambda: Sgd(1, 32, float("inf")), "Sgd.lr must be above 0, got inf"),
        (lambda: Sgd(1, 32, 0.1, pad=-1), "Sgd.pad must be a whole number from 0 on, got -1"),
        (lambda: Sgd(1, 32, 0.1, momentum=5), "momentum and label_smoothing are fractions"),
        (lambda: Sgd(3, 32, 0.1, warmup_epochs=3), "warmup_epochs 3 must be fewer than epochs 3"),
        (lambda: Sgd(3, 32, 0.1, milestones=30), "milestones must be a tuple of epochs, got 30"),  # type: ignore[arg-type]
        (lambda: Sgd(1, 32, 0.1, schedule="linear"), "schedule 'linear' is unknown"),  # type: ignore[arg-type]
        (lambda: Sgd(1, 2, 0.1, world_size=3), "batch 2 is less than world_size 3: some ranks get no image"),
        (lambda: Sgd(1, 2, 0.1, optimizer="lamb"), "optimizer 'lamb' is unknown; use one of torch, apex"),  # type: ignore[arg-type]
        (
            lambda: Training(Network(), Dataset("imagenet"), Sgd(1, 2, 0.1)),
            "crop 'padded' is not for imagenet",
        ),
        (lambda: Training(Network(), Dataset("digits"), Sgd(1, 2, 0.1, crop="resized")), "use 'padded'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_to_do(make: Any, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        make()


def test_a_record_of_another_version_or_with_an_unknown_type_is_refused() -> None:
    data = to_json(Recipe(training(), KSigma(5)))
    with pytest.raises(SuiteError, match="revision 1 here, but the record says 0"):
        from_json({**data, "method": {**data["method"], "revision": 0}})
    with pytest.raises(SuiteError, match="unknown type 'os.system'"):
        from_json({"type": "os.system", "command": "true"})
    with pytest.raises(SuiteError, match="a stage of another version"):
        from_json({**data, "start": {**data["start"], "epochs": 3}})
