"""`--gpus-per-run`: every training of a sweep is shared by as many ranks, wherever its recipe holds it."""

from __future__ import annotations

import pytest

from suite import sweeps
from suite.methods import find as find_methods
from suite.methods.lsq import Lsq
from suite.methods.mixed import Mixed
from suite.methods.scheme import Scheme
from suite.recipe import Dataset, Network, Recipe, Sgd, Training, over_ranks, plan
from suite.recipe.errors import SuiteError
from suite.steps import TrainOn

SGD = Sgd(1, 32, 0.1)


def test_over_ranks_changes_every_training_and_nothing_else() -> None:
    stages = plan(sweeps.find("quick").stages([])[0])
    shared = plan(over_ranks(stage, 4) for stage in stages)
    assert len(shared) == len(stages)
    trained = [stage for stage in shared if stage.trains_by]
    assert len(trained) == 8 and {stage.world_size for stage in trained} == {4}
    assert plan(over_ranks(stage, 1) for stage in shared) == stages


def test_over_ranks_finds_the_training_wherever_a_method_holds_it() -> None:
    start, sgd = Training(Network(), Dataset("digits"), SGD), Sgd(1, 32, 0.01)
    kinds = [
        *(kind() for kind in find_methods().values()),
        Scheme(4, 4, training=(TrainOn(sgd),)),
        Mixed(Lsq(4, 4)),
    ]
    for method in kinds:
        shared = over_ranks(Recipe(start, method), 2)
        assert isinstance(shared, Recipe) and shared.start.world_size == 2, method
        assert shared.world_size == (2 if method.trains_by else 1), method
        assert over_ranks(shared, 1) == Recipe(start, method)


def test_a_method_that_keeps_its_training_to_itself_is_not_spread_over_ranks() -> None:
    class Own(Scheme):
        @property
        def trains_by(self) -> Sgd:
            return SGD

    with pytest.raises(SuiteError, match="trains on 1 rank whatever is asked for"):
        over_ranks(Recipe(Training(Network(), Dataset("digits"), SGD), Own()), 2)
