"""The sweep of widths by layer: of every method that it offers, and no option without effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from suite.methods.adaround import Adaround
from suite.methods.lsq import Lsq
from suite.methods.mixed import Mixed
from suite.recipe import Recipe
from suite.recipe.errors import SuiteError
from suite.steps import AssignWidths, Reconstruct, TrainOn
from suite.sweeps.float_network import FloatNetwork
from suite.sweeps.mixed import LEARNED_ROUNDING, Base, sweep


@pytest.fixture
def float_network(tmp_path: Path) -> FloatNetwork:
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    return FloatNetwork(weights)


def mixed(recipes: Any) -> list[Mixed]:
    found = [recipe.method for recipe in recipes]
    assert all(isinstance(recipe, Recipe) for recipe in recipes)
    assert all(isinstance(method, Mixed) for method in found)
    return found


@pytest.mark.parametrize("of", get_args(Base))
def test_every_method_that_is_offered_gets_uniform_chosen_and_random_widths(
    float_network: FloatNetwork, of: Base
) -> None:
    methods = mixed(sweep(float_network, of, budgets=(2.5,), scores=("noise",), draws=1, uniform=(4, 3)))
    assert [method.by for method in methods] == ["uniform", "uniform", "noise", "random"]
    assert [method.size_bits for method in methods] == [4, 3, 2.5, 2.5]
    assert [method.bops_per_mac for method in methods] == [16, 9, 6.25, 6.25]
    for method in methods:
        kinds = [type(step) for step in method.steps()]
        assert (Reconstruct in kinds) == (of in LEARNED_ROUNDING) and (TrainOn in kinds) == (of == "lsq")
        chosen = kinds.index(AssignWidths)
        assert chosen < next(
            (kinds.index(kind) for kind in (Reconstruct, TrainOn) if kind in kinds), len(kinds)
        )


@pytest.mark.parametrize("of", LEARNED_ROUNDING)
def test_iterations_are_those_of_each_block(float_network: FloatNetwork, of: Base) -> None:
    for method in mixed(sweep(float_network, of, iterations=20_000, draws=0)):
        assert isinstance(method.of, Adaround) and method.of.iterations == 20_000


@pytest.mark.parametrize("on_digits", [True, False])
def test_epochs_are_those_of_lsq_from_a_checkpoint_and_on_digits(
    float_network: FloatNetwork, on_digits: bool
) -> None:
    start = FloatNetwork() if on_digits else float_network
    for given, epochs in ((0, 2 if on_digits else 1), (7, 7)):
        for method in mixed(sweep(start, "lsq", epochs=given, draws=0)):
            assert isinstance(method.of, Lsq) and method.feed.epochs == epochs  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "mse", "iterations": 10}, "iterations are of adaround, qdrop, best; mse learns no rounding"),
        ({"of": "lsq", "iterations": 10}, "iterations are of adaround, qdrop, best; lsq learns no rounding"),
        ({"of": "best", "epochs": 10}, "epochs are those that lsq trains; best does not train"),
        ({"budgets": (1.5,)}, "budgets are mean bits from 2 to 8"),
        ({"scores": ("random",)}, "scores 'random' is unknown"),
        ({"of": "apot"}, "of 'apot' is unknown"),
    ],
    ids=str,
)
def test_an_option_without_effect_and_one_that_is_none_are_refused(
    float_network: FloatNetwork, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SuiteError, match=words):
        sweep(float_network, **options)
