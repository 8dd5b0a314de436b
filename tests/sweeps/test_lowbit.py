"""The sweep of quantization-aware training: one convention for all methods, and whose schedules they have."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.learned import learning
from fakes.trainings import digits, small

from analysis.compare.papers import treatment
from suite.methods.apot import Apot
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import LearnedMethod, Lsq
from suite.methods.parq import Parq
from suite.quantizers.layers import Quantized
from suite.recipe import Damping, Freezing, Recipe
from suite.recipe.errors import SuiteError
from suite.sweeps.float_network import FloatNetwork
from suite.sweeps.lowbit import LLT, sweep


@pytest.fixture
def float_network(tmp_path: Path) -> FloatNetwork:
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    return FloatNetwork(weights)


def methods(recipes: list[Recipe]) -> list[LearnedMethod]:
    found = [recipe.method for recipe in recipes]
    assert all(isinstance(method, LearnedMethod) for method in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("convention", "weights", "inputs"), [("8", 8, 8), ("32", 32, 32), ("apot", 8, 32)], ids=str
)
def test_first_and_last_layer_of_every_method_follow_one_convention(
    float_network: FloatNetwork, convention: str, weights: int, inputs: int
) -> None:
    recipes = list(sweep(float_network, epochs=2, progressive=True, first_last=convention))  # type: ignore[arg-type]
    continued = [recipe.continues for recipe in recipes if recipe.continues]
    assert len(continued) == 4
    for method in methods(recipes + continued):
        assert method.first_last == weights
        own = method.first_last_inputs
        assert (weights if own is None else own) == inputs, method.name
    as_usual = list(sweep(float_network, epochs=2, progressive=True))
    same = {recipe.key for recipe in recipes} & {recipe.key for recipe in as_usual}
    assert {kind for recipe in recipes if recipe.key in same for kind in [type(recipe.method)]} == {
        "8": {type(method) for method in methods(as_usual)} - {Apot},
        "32": set(),
        "apot": {Apot},
    }[convention]


def test_first_and_last_layer_as_the_rest_have_the_widths_of_each_method(float_network: FloatNetwork) -> None:
    recipes = list(sweep(float_network, epochs=2, progressive=True, first_last="rest"))
    continued = [recipe.continues for recipe in recipes if recipe.continues]
    assert len(continued) == 4
    for method in methods(recipes + continued):
        assert method.first_last == method.weight_bits
        own = method.first_last_inputs
        assert (method.first_last if own is None else own) == method.act_bits, method.name
        assert treatment(method.edges, method.weight_bits, method.act_bits) == "as the rest"
    as_usual = list(sweep(float_network, epochs=2, progressive=True))
    assert len(recipes) == len(as_usual) and not {r.key for r in recipes} & {r.key for r in as_usual}


def test_every_method_learns_with_a_first_and_a_last_layer_as_the_rest(float_network: FloatNetwork) -> None:
    """At 2 bits the input of the first layer, which may be negative, has three or four levels."""
    found = {
        (type(method), method.act_bits): method
        for method in methods(list(sweep(float_network, epochs=2, first_last="rest")))
        if method.weight_bits == 2
    }
    assert len(found) == 12
    x = digits(8).normalized(digits(8).pixels)
    for method in found.values():
        model = learning(method, small())
        layers = [module for module in model.modules() if isinstance(module, Quantized)]
        assert [(q.grid.bits if q else 32) for layer in layers for q in (layer.weight, layer.input)] == [
            2,
            method.act_bits,
        ] * len(layers)
        model(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), method.name


def test_another_convention_is_refused(float_network: FloatNetwork) -> None:
    with pytest.raises(SuiteError, match="first_last '16' is unknown; use one of own, 8, 32, apot, rest"):
        sweep(float_network, first_last="16")  # type: ignore[arg-type]


def test_lsq_runs_at_three_bits_with_what_helps_where_weights_oscillate(float_network: FloatNetwork) -> None:
    recipes = list(sweep(float_network, epochs=2))
    calm = [recipe for recipe in recipes if isinstance(recipe.method, Lsq) and recipe.method.weight_bits == 3]
    named = {recipe.name.split(" seed")[0].removeprefix("lsq w3a3 2 epochs").strip() for recipe in calm}
    assert named == {
        "",
        "distillation",
        "damping",
        "freezing (threshold 0.011)",
        "BatchNorm re-estimated",
    }
    frozen, damped = (
        next(m for m in methods(recipes) if getattr(m, name)) for name in ("freezing", "damping")
    )
    assert frozen.freezing == Freezing(threshold=0.011) and damped.damping == Damping()


def test_without_epochs_each_method_has_a_schedule_of_its_own(float_network: FloatNetwork) -> None:
    own = methods(list(sweep(float_network)))
    plain = [m for m in own if type(m) is Lsq and m == Lsq(m.weight_bits, m.act_bits, feed=m.feed)]
    decays = {(m.weight_bits, m.feed.weight_decay) for m in plain}
    assert decays == {(4, 1e-4), (3, 0.5e-4), (2, 0.25e-4)} and {m.feed.epochs for m in plain} == {LLT.epochs}
    assert {(m.feed.epochs, m.feed.batch) for m in own if isinstance(m, Ewgs)} == {(400, 256)}
    anew = [recipe for recipe in sweep(float_network) if isinstance(recipe.method, Parq)]
    assert anew and all(recipe.from_scratch and "from scratch" in recipe.name for recipe in anew)
    equal = [recipe for recipe in sweep(float_network, epochs=2) if isinstance(recipe.method, Parq)]
    assert equal and not any(recipe.from_scratch for recipe in equal)
