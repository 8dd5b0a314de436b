"""The methods whose quantizers learn: what they insert where, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from fakes.learned import learning
from fakes.networks import lived_in

from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.dorefa import Dorefa
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.quantizers.layers import Quantized
from suite.recipe import Damping, Dataset, Freezing, Network, Pretrained, Recipe, Sgd
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.steps import Distillation
from suite.steps import learned as rounding
from suite.sweeps.values import from_json

START = Pretrained(Network(), Dataset("digits"), "weights.pt", "0" * 64)


def widths(method: Any) -> dict[str, tuple[int, int]]:
    """(weight bits, input bits) of each layer, 32 for float."""
    return {
        name: (
            module.weight.grid.bits if module.weight else 32,
            module.input.grid.bits if module.input else 32,
        )
        for name, module in learning(method, lived_in(), 32).named_modules()
        if isinstance(module, Quantized)
    }


@pytest.mark.parametrize("kind", [Lsq, LsqPlus, Apot])
def test_the_inputs_of_the_first_and_the_last_layer_may_have_a_width_of_their_own(kind: Any) -> None:
    found = widths(kind(3, 2, first_last_inputs=32))
    assert found.pop("conv1") == found.pop("linear") == (8, 32)
    assert set(found.values()) == {(3, 2)}
    assert kind(3, 2, first_last_inputs=32).edges == "weights 8 bits, inputs float"
    assert set(widths(kind(3, 2, first_last=4, first_last_inputs=5)).values()) == {(3, 2), (4, 5)}


def test_first_and_last_layer_have_eight_bits_and_all_others_those_of_the_method() -> None:
    found = widths(Lsq(3, 2))
    assert found.pop("conv1") == found.pop("linear") == (8, 8)
    assert len(found) == 20 and set(found.values()) == {(3, 2)}
    found = widths(Apot(4, 4))
    assert found["conv1"] == found["linear"] == (8, 32) and found["layer1.0.conv1"] == (4, 4)
    assert widths(Lsq(4, 32))["layer1.0.conv1"] == (4, 32)


@pytest.mark.parametrize("kind", [Lsq, LsqPlus, Pact, Dorefa, Ewgs, Apot, Parq, BinaryRelax])
def test_the_width_of_the_first_and_the_last_layer_is_a_declared_axis(kind: type) -> None:
    eight, four = Recipe(START, kind(4, 4)), Recipe(START, kind(4, 4, first_last=4))
    assert eight.key != four.key and (eight.params["first_last"], four.params["first_last"]) == (8, 4)
    assert "8 bits" in eight.params["edges"] and "4 bits" in four.params["edges"]


def test_seeds_from_a_checkpoint_are_those_of_the_calibration_and_differ_in_nothing_else() -> None:
    method = Lsq(4, 4)
    again = dataclasses.replace(method, calibration=dataclasses.replace(method.calibration, seed=1))
    zero, one = Recipe(START, method), Recipe(START, again)
    assert (zero.seed, one.seed) == (0, 1)
    differing = {name for name in zero.params if zero.params[name] != one.params[name]}
    assert differing == {"seed", "feed_seed"}


def test_a_recipe_with_damping_and_freezing_is_read_from_the_sweep_that_workers_get() -> None:
    calm = Recipe(START, Lsq(4, 4, damping=Damping(0.2), freezing=Freezing(begin=0.5)))
    again = from_json(json.loads(json.dumps(to_json(calm))))
    assert again == calm and again.key != Recipe(START, Lsq(4, 4)).key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": "max"}, "initial 'max' is unknown; use one of mse, mean"),
        ({"per": "row"}, "per 'row' is unknown; use one of tensor, channel"),
        ({"first_last": 1}, "first_last 1 is out of range"),
    ],
)
def test_settings_of_lsq_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        Lsq(**settings)


def test_settings_of_the_others_out_of_range_are_refused() -> None:
    with pytest.raises(SuiteError, match="Ewgs.scaling must be 0 or more, got -1"):
        Ewgs(scaling=-1)
    with pytest.raises(SuiteError, match="first_last_inputs 40 is out of range"):
        Apot(first_last_inputs=40)
    with pytest.raises(SuiteError, match="Lsq.step_lr must be above 0, got 0"):
        Lsq(step_lr=0)


BAD = (-1.0, math.inf, math.nan)


@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Lsq, "step_weight_decay"),
        (LsqPlus, "step_weight_decay"),
        (Pact, "clip_weight_decay"),
        (Ewgs, "range_weight_decay"),
        (Ewgs, "scaling"),
        (Apot, "alpha_weight_decay"),
        (rounding.Lsq, "weight_decay"),
        (rounding.Ewgs, "scaling"),
        (Distillation, "labels"),
    ],
    ids=lambda one: getattr(one, "__qualname__", one),
)
def test_what_is_not_negative_is_refused_when_it_is_made(kind: Any, name: str, value: float) -> None:
    with pytest.raises(SuiteError, match=rf"{kind.__name__}.{name} must be 0 or more, got {value!r}"):
        kind(**{name: value})
    assert kind(**{name: 0.0})


@pytest.mark.parametrize("value", [0.0, *BAD], ids=str)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Lsq, "step_lr"),
        (LsqPlus, "step_lr"),
        (Pact, "clip_lr"),
        (Ewgs, "range_lr"),
        (Apot, "input_lr"),
        (Apot, "weight_lr"),
        (Parq, "steepness"),
        (rounding.Lsq, "lr_scale"),
        (rounding.Deviations, "k"),
        (Distillation, "temperature"),
        (Damping, "strength"),
    ],
    ids=lambda one: getattr(one, "__qualname__", one),
)
def test_what_is_positive_is_refused_when_it_is_made(kind: Any, name: str, value: float) -> None:
    with pytest.raises(SuiteError, match=rf"{kind.__name__}.{name} must be above 0, got {value!r}"):
        kind(**{name: value})


@pytest.mark.parametrize("kind", [Parq, BinaryRelax])
@pytest.mark.parametrize("until", [0.0, 1.5, *BAD], ids=str)
def test_a_part_of_the_training_is_one(kind: Any, until: float) -> None:
    with pytest.raises(SuiteError, match="until must be above 0 and at most 1"):
        kind(until=until)


@pytest.mark.parametrize("value", BAD, ids=str)
def test_a_weight_decay_of_a_training_is_a_number(value: float) -> None:
    with pytest.raises(SuiteError, match=rf"Sgd.weight_decay must be 0 or more, got {value!r}"):
        Sgd(1, 1, 0.1, weight_decay=value)
