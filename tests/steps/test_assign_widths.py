"""Widths by layer meet the budget, keep what is declared, tie what hangs together, and compose with other methods."""

from __future__ import annotations

import copy
import json
from itertools import chain
from typing import Any

import pytest
import torch
from fakes.mixed import CALIBRATION, LAYERS, START, Keeping, chosen, images, mixed, tied, widths
from torch import nn

import suite
from suite.methods.adaround import Adaround
from suite.methods.best import Best
from suite.methods.linear import Linear
from suite.methods.lsq import Lsq
from suite.methods.mixed import Mixed
from suite.methods.mse import Mse
from suite.methods.scheme import Scheme
from suite.quantizers.layers import Quantized, first_and_last, set_widths, stored_parameters, widths_of
from suite.quantizers.model_size import size_mb
from suite.recipe import Calibration, Precision, Recipe, Sgd
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.run.pipeline import quantized, steps_of
from suite.steps import AssignWidths
from suite.sweeps.values import from_json

SHORT = Sgd(epochs=1, batch=8, lr=0.01, precision=Precision("O0"))


@pytest.mark.parametrize("by", ["logits", "gradient", "noise", "hessian", "loss", "random"])
def test_the_budgets_are_met_tied_layers_are_alike_and_the_model_has_the_widths_that_are_kept(
    by: Any,
) -> None:
    model, kept, feed = chosen(mixed(Mse(4, 4, feed=CALIBRATION), by, draw_seed=3))
    found = widths(kept)
    assert tuple(found) == LAYERS and found["left"] == found["right"] and kept["tied"] == [["left", "right"]]
    weights = {"conv": 108, "left": 144, "right": 16, "linear": 40}
    assert kept["mean_weight_bits"] == pytest.approx(sum(weights[n] * w for n, (w, _) in found.items()) / 308)
    assert kept["mean_weight_bits"] <= 4
    assert kept["bops"] <= 16 * (64 * 268 + 40) and feed.values["bops"] == kept["bops"]
    assert kept["size_mb"] == pytest.approx(size_mb(model)) == feed.values["size_mb"]
    for name, (weight_bits, input_bits) in found.items():
        held: Any = model.get_submodule(name)
        assert (
            stored_parameters(held.layer)["weight"].bits == weight_bits and held.input.grid.bits == input_bits
        )
    json.dumps(kept, allow_nan=False)


def test_the_same_recipe_chooses_the_same_and_a_larger_budget_costs_no_more() -> None:
    def cost(kept: dict[str, Any]) -> float:
        return float(
            sum(
                layer["scores"][tensor][str(layer[f"{tensor}_bits"])]
                for layer in kept["layers"]
                for tensor in ("weight", "input")
            )
        )

    base = Mse(4, 4, feed=CALIBRATION)
    one, other = (chosen(mixed(base))[1] for _ in range(2))
    assert one == other
    costs = [
        cost(chosen(mixed(base, size_bits=float(bits), bops_per_mac=bits**2.0))[1]) for bits in (2, 3, 5, 8)
    ]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


def test_uniform_widths_are_those_of_the_method_to_the_bit() -> None:
    base = Adaround(4, 4, iterations=2, batch=4, feed=CALIBRATION)
    x, _ = images()
    model, kept, _ = chosen(mixed(base, "uniform"))
    plain = suite.quantize(tied(), base, x)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), plain(x))
    assert widths(kept) == {"conv": (8, 8), "left": (4, 4), "right": (4, 4), "linear": (8, 8)}


def test_what_is_declared_stays_and_the_budget_is_that_of_the_others() -> None:
    _, kept, _ = chosen(mixed(Adaround(3, 3, iterations=2, batch=4, feed=CALIBRATION)))
    found = widths(kept)
    assert found["conv"] == found["linear"] == (8, 8)
    assert [layer["declared"] for layer in kept["layers"]] == [True, False, False, True]
    assert found["left"] == found["right"] and found["left"][0] == 2
    by_layer = Scheme(4, 4, by_layer=(("left", 6, 5),), calibration=CALIBRATION)
    assert widths(chosen(mixed(by_layer))[1])["right"] == (6, 5), "tied to what is declared"


@pytest.mark.parametrize(
    "base",
    [
        Mse(4, 4, feed=CALIBRATION),
        Adaround(4, 4, iterations=2, batch=4, feed=CALIBRATION),
        Best(4, 4, iterations=2, batch=4, feed=CALIBRATION, together=0.5, weight_step_lr=1e-3),
        Lsq(4, 4, feed=SHORT, calibration=CALIBRATION),
        Scheme(4, 32, calibration=CALIBRATION),
        Scheme(32, 4, calibration=CALIBRATION),
        Scheme(4, 4, calibration=CALIBRATION, first_last=8),
    ],
    ids=str,
)
def test_it_composes_with_methods_that_calibrate_learn_rounding_and_train(base: Any) -> None:
    size = 0 if base.weight_bits == 32 else None
    model, kept, _ = chosen(mixed(base, size_bits=size))
    for name, (weight_bits, input_bits) in widths(kept).items():
        held: Any = model.get_submodule(name)
        assert (weight_bits == 32) == (base.weight_bits == 32) and (input_bits == 32) == (base.act_bits == 32)
        layer = held.layer if isinstance(held, Quantized) else held
        if weight_bits < 32:
            assert all(len(channel.unique()) <= 2**weight_bits for channel in layer.weight.flatten(1))


def test_a_slow_search_says_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no part of what is kept, which is the same every time."""
    method = mixed(Mse(4, 4, feed=CALIBRATION))
    _, kept, _ = chosen(method)
    assert "search" not in capsys.readouterr().out
    monkeypatch.setattr("suite.steps.assign_widths.SLOW", 0.0)
    assert chosen(method)[1] == kept
    assert "the search for widths took 0 s: 3 groups of layers, 9 pairs" in capsys.readouterr().out


def test_weights_and_inputs_may_be_asked_to_be_alike() -> None:
    _, kept, _ = chosen(mixed(Mse(4, 4, feed=CALIBRATION), apart=False))
    assert all(weight == act for weight, act in widths(kept).values())


def test_a_budget_that_nothing_meets_says_the_least_possible() -> None:
    with pytest.raises(SuiteError, match="mean of bits of a weight of 1.5; the least possible is 2: raise"):
        chosen(mixed(Mse(4, 4, feed=CALIBRATION), size_bits=1.5))
    with pytest.raises(
        SuiteError, match="bit operations of a multiplication of 16; the least possible is 25"
    ):
        chosen(mixed(Mse(4, 4, feed=CALIBRATION), size_bits=0, widths=(5, 6), by="random"))
    with pytest.raises(SuiteError, match="widths need a budget"):
        Mixed(size_bits=0, bops_per_mac=0)


def test_tied_layers_with_different_declared_widths_are_refused() -> None:
    base = Scheme(4, 4, by_layer=(("left", 4, 4), ("right", 8, 4)), calibration=CALIBRATION)
    with pytest.raises(
        SuiteError, match="left w4a4, right w8a4 are declared; give all of left, right the same"
    ):
        chosen(mixed(base))


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.unused = tied(), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.net(x)
        return result


class Rare(Idle):
    """Which layers compute depends on values, so that it cannot be traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.net(self.unused(x) if x.mean() > 1000 else x)
        return result


def test_a_layer_that_computes_nothing_is_left_as_it_is_and_named_where_that_is_not_known() -> None:
    model, kept, _ = chosen(mixed(Scheme(4, 32)), Idle().eval())
    assert "unused" not in widths(kept) and type(model.get_submodule("unused")) is nn.Conv2d
    with pytest.raises(SuiteError, match="no score covers layer unused: it computes nothing on the images"):
        chosen(mixed(Scheme(4, 32)), Rare().eval())


def test_a_method_that_sets_its_widths_in_its_own_way_is_refused() -> None:
    with pytest.raises(SuiteError, match="widths by layer are not for linear"):
        Mixed(Linear(8))
    with pytest.raises(SuiteError, match="by 'best' is unknown; use one of noise, logits"):
        Mixed(by="best")  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="widths must be a tuple of different numbers of bits"):
        Mixed(widths=(4, 4))


def test_labels_are_needed_only_where_a_loss_is() -> None:
    x, _ = images()
    suite.quantize(tied(), mixed(Mse(4, 4, feed=CALIBRATION), "noise"), x)
    with pytest.raises(SuiteError, match="measures a loss; give quantize"):
        suite.quantize(tied(), mixed(Mse(4, 4, feed=CALIBRATION)), x)


def test_a_recipe_tells_its_budget_and_comes_back_from_json() -> None:
    methods = [
        Mixed(),
        Mixed(Adaround(3, 3), size_bits=2.5, bops_per_mac=6.25),
        Mixed(Lsq(4, 4, feed=SHORT), by="random", draw_seed=7),
        Mixed(Scheme(4, 4, first_last=8)),
    ]
    recipes = [Recipe(START, method) for method in methods]
    assert len({recipe.key for recipe in recipes}) == len({recipe.name for recipe in recipes}) == 4
    for recipe in recipes:
        again = from_json(to_json(recipe))
        assert again == recipe and again.key == recipe.key and again.name == recipe.name
    words = "mixed w3a3 of adaround size bits 2.5 bops per mac 6.25 seed 0 from"
    assert recipes[1].name.startswith(words)
    assert recipes[1].params["size_bits"] == 2.5 and recipes[1].params["of"] == "adaround"
    assert recipes[2].params["draw_seed"] == 7 and recipes[2].trains_by == SHORT


def test_seeds_of_the_method_it_holds_are_its_own() -> None:
    one = Mixed(Mse(4, 4, feed=Calibration(seed=1)))
    assert one == Mixed(Mse(4, 4), feed=Calibration(seed=1)) and one.of == Mse(4, 4)
    assert Recipe(START, one).seed == 1
    params = Recipe(START, one).params
    assert {name: value for name, value in params.items() if "seed" not in name} == {
        name: value for name, value in Recipe(START, Mixed()).params.items() if "seed" not in name
    }


def test_the_recipes_own_first_and_last_width_is_declared_too() -> None:
    recipe = Recipe(START, mixed(Mse(4, 4, feed=CALIBRATION)), edge_bits=8)
    x, labels = images()
    feed = Keeping(tied(), x, labels)
    quantized(steps_of(recipe), feed)
    found = widths(feed.kept["widths.json"])
    assert found["conv"] == found["linear"] == (8, 8) != found["left"]


def test_where_the_first_and_the_last_layer_are_float_the_others_are_free() -> None:
    """The layers behind them were taken for the first and the last, once these had no quantizers."""
    _, found, _ = chosen(mixed(Scheme(4, 4, first_last=32, calibration=CALIBRATION)))
    assert found["layers"] and not any(layer["declared"] for layer in found["layers"])


def test_a_resumed_run_chooses_by_the_scores_that_were_saved_and_counts_no_metric_twice() -> None:
    x, labels = images()
    state: dict[str, Any] = {}

    class Resuming(Keeping):
        def save(self, made: Any, part: float, doing: str = "") -> None:
            if part == 1:
                state.update(copy.deepcopy(made()))

        def saved(self) -> Any:
            return state or None

        def labelled(self, calibration: Calibration) -> Any:
            assert not state, "scores are not measured again"
            return super().labelled(calibration)

    steps = mixed(Mse(4, 4, feed=CALIBRATION)).steps()
    feeds = [Resuming(tied(), x, labels) for _ in range(2)]
    for feed in feeds:
        quantized(steps, feed)
    assert feeds[0].kept == feeds[1].kept
    assert feeds[0].values and not feeds[1].values


def test_the_step_stands_by_itself_behind_insert() -> None:
    x, labels = images()
    insert, ranges, _ = Mse(4, 4, feed=CALIBRATION).steps()
    inserted = quantized([insert], Keeping(tied(), x, labels))
    set_widths(inserted, dict.fromkeys(chain(*first_and_last(inserted)), (8, 8)))
    step = AssignWidths(ranges=(ranges,), images=CALIBRATION, first_last=8, widths=(3, 5))
    step.apply(inserted, Keeping(tied(), x, labels))
    found = widths_of(inserted)
    assert found["conv"] == found["linear"] == (8, 8) and set(found["left"]) <= {3, 5}


@pytest.mark.parametrize("budget", ["size_bits", "bops_per_mac", "latency_ms"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0, None, "4", True], ids=str)
def test_a_budget_that_is_no_finite_number_is_refused(budget: str, wrong: Any) -> None:
    with pytest.raises(SuiteError, match="a budget is a finite number from 0 on"):
        AssignWidths(**{"size_bits": 4.0, "bops_per_mac": 16.0, budget: wrong})


def test_traces_of_few_images_are_recorded_and_warned_of() -> None:
    """Of one sample there is no standard error."""
    base = Mse(4, 4, feed=CALIBRATION)
    with pytest.warns(
        UserWarning, match="the Hessian's trace of 8 of 8 tensors is below 2 of its standard errors"
    ):
        _, kept, _ = chosen(mixed(base, "hessian", probes=1, score_images=CALIBRATION.batch))
    (said,) = kept["warnings"]
    assert "conv weight" in said and "and 3 more" in said
    assert all(one["standard_error"] is None for layer in kept["layers"] for one in layer["hessian"].values())
    assert "hessian" not in chosen(mixed(base))[1]["layers"][0]
