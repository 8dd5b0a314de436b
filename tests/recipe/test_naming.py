"""No two stages of different keys look alike: neither by their parameters nor by their names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from fakes.methods import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st

from suite import sweeps
from suite.methods.amax import Amax
from suite.methods.lsq import Lsq
from suite.methods.percentile import Percentile
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
)
from suite.recipe.errors import SuiteError
from suite.recipe.naming import combined, method_params
from suite.recipe.serialize import DATA_FIELDS
from suite.recipe.settings import Damping, Freezing
from suite.steps import CorrectBias, Distillation, ReestimateBatchNorm, TrainOn, Uniform
from suite.steps import Percentile as PercentileRange
from suite.sweeps.stored import save_sweep

SGDS = st.builds(
    Sgd,
    epochs=st.integers(1, 3),
    batch=st.sampled_from([32, 64]),
    lr=st.sampled_from([0.1, 0.01]),
    momentum=st.sampled_from([0.0, 0.1, 0.9]),
    milestones=st.sampled_from([(), (1,), (1, 2)]),
    precision=st.builds(Precision, st.sampled_from(["O0", "O2"]), st.sampled_from(["float16", "bfloat16"])),
)
STARTS = st.one_of(
    st.builds(
        Training,
        st.builds(Network, st.sampled_from(["resnet20", "resnet56"]), st.sampled_from(["A", "B"])),
        st.builds(Dataset, st.sampled_from(["digits", "cifar10"]), size=st.sampled_from([8, 32])),
        SGDS,
        st.integers(0, 1),
    ),
    st.builds(
        Pretrained,
        st.builds(Network, st.sampled_from(["resnet20", "resnet56"])),
        st.builds(Dataset, st.just("cifar10"), st.sampled_from([(0.5, 0.5, 0.5), (0.5, 0.4, 0.3)])),
        st.just("weights.pt"),
        st.sampled_from(["0" * 64, "1" * 64]),
    ),
)
CALIBRATIONS = st.builds(Calibration, images=st.sampled_from([64, 1024]), seed=st.integers(0, 1))
METHODS = st.one_of(
    st.builds(Amax, st.integers(2, 3), st.integers(2, 3), st.none() | CALIBRATIONS),
    st.builds(Percentile, st.integers(2, 3), momentum=st.sampled_from([0.1, 0.9]), feed=CALIBRATIONS),
    st.builds(QatSymmetric, st.integers(2, 3), momentum=st.sampled_from([0.1, 0.9]), feed=SGDS),
)
STAGES = STARTS | st.builds(Recipe, STARTS, METHODS)


def looks(stage: Stage) -> tuple[str, str]:
    """Parameters and name, as people and MLflow see them."""
    return json.dumps({name: str(value) for name, value in stage.params.items()}, sort_keys=True), stage.name


def alike(stages: list[Stage]) -> list[str]:
    """What two stages of different keys have in common: their parameters, or their name."""
    found = []
    by_key = {stage.key: looks(stage) for stage in stages}
    for index, what in enumerate(("parameters", "names")):
        seen: dict[str, str] = {}
        for key, look in by_key.items():
            if seen.setdefault(look[index], key) != key:
                found.append(f"two stages have the {what} {look[index]}")
    return found


def neighbours(value: Any) -> Iterator[Any]:
    """The dataclass with each one of its fields changed, and those inside of them."""
    hints = get_type_hints(type(value))
    for item in dataclasses.fields(value):
        for other in others(getattr(value, item.name), hints[item.name]):
            try:
                yield dataclasses.replace(value, **{item.name: other})
            except SuiteError:
                continue  # the change alone makes nothing that can be


def others(content: Any, annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from (choice for choice in get_args(annotation) if choice != content)
    elif dataclasses.is_dataclass(content):
        yield from neighbours(content)
    elif isinstance(content, bool):
        yield not content
    elif isinstance(content, int):
        yield from (content + 1, content + 2)
    elif isinstance(content, float):
        yield from (content / 2, content / 4, 0.0)
    elif isinstance(content, tuple) and get_args(annotation)[0] in (int, float):
        yield from (tuple(0.25 for _ in content), (*content[:-1], 0.125), (1,), (1, 2))
    elif isinstance(content, str):
        yield content[::-1].replace("0", "2")


@given(st.lists(STAGES, max_size=12))
def test_any_two_stages_of_different_keys_differ_in_parameters_and_in_name(stages: list[Stage]) -> None:
    assert alike(list(plan(stages))) == []


@settings(max_examples=20)
@given(STAGES)
def test_whatever_field_is_changed_parameters_and_name_change_too(stage: Stage) -> None:
    assert alike([stage, *neighbours(stage)]) == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_field_of_every_method_is_in_parameters_and_name(kind: type) -> None:
    start = Training(Network(), Dataset("digits"), Sgd(3, 32, 0.1))
    hints = get_type_hints(kind)
    drawn = {name: Calibration(seed=1) for name in DATA_FIELDS if "Calibration" in str(hints.get(name))}
    recipes = [Recipe(start, kind()), Recipe(start, kind(**drawn))]
    assert alike([*recipes, *neighbours(recipes[0]), *neighbours(recipes[1])]) == []


SHIPPED = ["quick", "published", "resnet50", "nin", "enlarged", "imagenet", "lowbit", "mixed", "ptq"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_sweep_has_no_two_names_alike(name: str) -> None:
    assert alike(list(plan(sweeps.find(name).stages([])[0]))) == []


def test_a_methods_momentum_and_that_of_the_training_are_two_parameters() -> None:
    sgds = [Sgd(1, 32, 0.1, momentum=momentum) for momentum in (0.9, 0.0)]
    recipes = [Recipe(Training(Network(), Dataset("digits"), sgd), Percentile()) for sgd in sgds]
    assert [recipe.params["momentum"] for recipe in recipes] == [0.9, 0.0]
    assert {recipe.params["method_momentum"] for recipe in recipes} == {0.1}
    trained = QatSymmetric(momentum=0.2, feed=Sgd(1, 32, 0.1, momentum=0.3))
    params = Recipe(recipes[0].start, trained).params
    assert [params[name] for name in ("momentum", "feed_momentum", "method_momentum")] == [0.9, 0.3, 0.2]
    pretrained = Pretrained(Network(), Dataset("cifar10"), "w.pt", "0" * 64)
    params = Recipe(pretrained, Percentile()).params
    assert params["method_momentum"] == 0.1 and "momentum" not in params


def test_names_read_well_whatever_a_method_is_made_of() -> None:
    start, sgd = Training(Network(), Dataset("digits"), Sgd(1, 32, 0.1)), Sgd(3, 64, 0.01, schedule="cosine")
    made = {
        Lsq(4, 4, damping=Damping()): "lsq w4a4 damping",
        Lsq(4, 4, freezing=Freezing(threshold=0.02, begin=0.5)): "lsq w4a4 freezing (threshold 0.02, begin 0.5)",
        Lsq(4, 4, distillation=Distillation()): "lsq w4a4 distillation",
        QatSymmetric(4, 4, momentum=0.5, feed=dataclasses.replace(QatSymmetric().feed, momentum=0.3, nesterov=True)):
            "qat_symmetric w4a4 SGD momentum 0.3 nesterov momentum 0.5",
        Scheme(32, 32, calibration=None, training=(TrainOn(sgd),)):
            "scheme w32 O2 float16 3 epochs batch 64 lr 0.01 schedule cosine",
        Scheme(4, 4, training=(TrainOn(sgd, Distillation(2.0)),)):
            "scheme w4a4 O2 float16 3 epochs batch 64 lr 0.01 schedule cosine training train on (distillation "
            "distillation (temperature 2.0))",
        Scheme(4, 4, inputs=Uniform(PercentileRange(0.999)), after=(ReestimateBatchNorm(), CorrectBias())):
            "scheme w4a4 inputs uniform (range percentile (fraction 0.999)) after reestimate batch norm, correct bias",
    }  # fmt: skip
    for method, name in made.items():
        assert Recipe(start, method).name == f"{name} seed 0 from {start.key[:8]}"


def test_a_parameter_that_two_values_want_is_refused() -> None:
    assert method_params({"lr": 1, "feed_images": 2, "k": 3}) == {
        "method_lr": 1,
        "method_feed_images": 2,
        "k": 3,
    }
    with pytest.raises(SuiteError, match="two values want the parameter 'method_lr': 1 and 2; rename"):
        method_params({"lr": 1, "method_lr": 2})
    with pytest.raises(SuiteError, match="two values want the parameter 'k'"):
        combined({"k": 1}, {"k": 1})


def test_a_sweep_of_stages_that_look_alike_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Training(Network(), Dataset("digits"), Sgd(1, 32, 0.1))
    stages = plan([Recipe(start, Amax(bits)) for bits in (8, 4)])
    monkeypatch.setattr(Recipe, "name", "a recipe")
    monkeypatch.setattr(Recipe, "params", {})
    with pytest.raises(
        SuiteError, match=f"two stages look alike, {stages[2].key} and {stages[1].key}: a recipe"
    ):
        save_sweep(tmp_path, "alike", {}, stages)
