"""The assignment of widths is the best there is: that of enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.recipe.errors import SuiteError
from suite.sensitivity import width_search
from suite.sensitivity.width_search import Resource, drawn, least_cost, never_rising

BITS = (2, 4, 8)


def best(costs: np.ndarray, resources: list[Resource]) -> float:
    """The least cost of all choices within the limits; infinite where there is none."""
    groups, options = costs.shape
    choices = np.array(list(itertools.product(range(options), repeat=groups)))
    rows = np.arange(groups)
    fits = np.ones(len(choices), bool)
    for resource in resources:
        fits &= resource.used[rows, choices].sum(1) <= resource.limit * (1 + 1e-9)
    found: float = np.where(fits, costs[rows, choices].sum(1), np.inf).min()
    return found


def problem(seed: int, groups: int, options: int = 3) -> tuple[np.ndarray, list[Resource]]:
    """Costs that fall with the width over six decades, as scores do, and two resources that rise with it."""
    generator = np.random.default_rng(seed)
    scale = 10 ** generator.uniform(-5, 1, (groups, 1))
    costs = np.sort(scale * generator.uniform(0, 1, (groups, options)), axis=1)[:, ::-1].copy()
    weights, macs = generator.integers(1, 5000, (2, groups, 1))
    bits = np.array(BITS[:options])
    used = weights * bits, macs * bits**2
    return costs, [Resource(one, generator.uniform(0.2, 1) * one.max(1).sum()) for one in used]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 7))
def test_it_is_that_of_enumeration(seed: int, groups: int) -> None:
    costs, resources = problem(seed, groups)
    expected = best(costs, resources)
    if expected == np.inf:
        with pytest.raises(SuiteError, match="the least possible is"):
            least_cost(costs, resources)
        return
    choice = least_cost(costs, resources)
    assert choice == least_cost(costs, resources)
    assert all(resource.holds(choice) for resource in resources)
    found = float(costs[np.arange(groups), list(choice)].sum())
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-10 * float(costs.max()))


def test_it_is_that_of_enumeration_on_twelve_layers() -> None:
    costs, resources = problem(5, 12)
    choice = least_cost(costs, resources)
    assert costs[np.arange(12), list(choice)].sum() == pytest.approx(best(costs, resources), rel=1e-9)


def test_a_search_without_an_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found until then would differ from machine to machine."""
    monkeypatch.setattr(width_search, "SECONDS", 0.0)
    with pytest.raises(SuiteError, match=r"not found: .*[Tt]ime limit.* allow fewer widths"):
        least_cost(*problem(5, 40))


def test_a_limit_that_a_choice_just_meets_is_met_and_one_just_below_it_is_not() -> None:
    costs = np.array([[5.0, 1.0]] * 3)
    used = np.array([[2, 4]] * 3, np.int64) * 10**9
    assert least_cost(costs, [Resource(used, 12e9)]) == (1, 1, 1)
    assert sum(least_cost(costs, [Resource(used, 12e9 - 100)])) == 2
    with pytest.raises(SuiteError, match=r"has a mean of 1.5; the least possible is 2: raise the budget"):
        least_cost(costs, [Resource(used, 4.5e9, 3e9, "a mean of")])


def test_random_widths_are_within_the_limits_cannot_be_widened_and_differ_by_seed() -> None:
    options = list(itertools.product((2, 3, 4, 8), repeat=2))
    weights, macs = np.array([[50], [200], [9]]), np.array([[7], [1], [30]])
    used = weights * [one for one, _ in options], macs * [one * other for one, other in options]
    resources = [Resource(used[0], 4 * 259), Resource(used[1], 16 * 38)]
    found = [drawn(options, resources, 3, seed) for seed in range(20)]
    assert found == [drawn(options, resources, 3, seed) for seed in range(20)] and len(set(found)) > 5
    for choice in found:
        assert all(resource.holds(choice) for resource in resources)
        for group, option in itertools.product(range(3), range(len(options))):
            now, other = options[choice[group]], options[option]
            if now != other and now[0] <= other[0] and now[1] <= other[1]:
                changed = [*choice[:group], option, *choice[group + 1 :]]
                assert not all(resource.holds(changed) for resource in resources)


def test_a_wider_tensor_never_costs_more_and_none_less_than_nothing() -> None:
    assert never_rising({8: 2.0, 2: 1.0, 4: -1.0}) == {2: 1.0, 4: 0.0, 8: 0.0}
