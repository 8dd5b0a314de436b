"""The assignment of widths is the best there is: that of enumeration, and of HAWQ where it published one."""

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


# ResNet-18 of HAWQ-V3: ILP.ipynb of github.com/Zhen-Dong/HAWQ, commit 87ad098c, without the first and the last layer.
TRACE = np.array(
    [0.06857826, 0.03162379, 0.03298575, 0.01205663, 0.02222431, 0.00596336, 0.06931772, 0.00807129, 0.00372905,
     0.00530698, 0.00209011, 0.00737569, 0.00210454, 0.00151197, 0.00158041, 0.00078146, 0.00451841, 0.00098745,
     0.00072944]
)  # fmt: skip
AT_8_BITS = np.array(
    [0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333, 0.0682, 0.0027, 0.0448, 0.0336,
     0.0576, 0.1130, 0.0102, 0.0947, 0.0532]
)  # fmt: skip
AT_4_BITS = np.array(
    [6.7430, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, 0.6827, 9.0942, 4.8857, 10.7599, 21.7546, 0.8603, 14.5324,
     10.9651, 18.7706, 36.4044, 3.1572, 29.6994, 17.4016]
)  # fmt: skip
PARAMETERS = np.array(
    [36864] * 4 + [73728, 147456, 8192, 147456, 147456, 294912, 589824, 32768, 589824, 589824, 1179648, 2359296,
     131072, 2359296, 2359296]
)  # fmt: skip
MACS = np.array(
    [115605504] * 4 + [57802752, 115605504, 6422528, 115605504, 115605504] * 3
)  # fmt: skip
LATENCY_4 = np.array(
    [0.21094404, 0.21092674, 0.21104113, 0.21086851, 0.13642465, 0.19167506, 0.02532183, 0.19148203, 0.19142914,
     0.11395316, 0.20556011, 0.01917474, 0.20566918, 0.20566509, 0.13185102, 0.22287786, 0.01790088, 0.22304611,
     0.22286099]
)  # fmt: skip
LATENCY_8 = np.array(
    [0.36189111, 0.36211718, 0.31141909, 0.30454471, 0.19184896, 0.38948934, 0.0334169, 0.38904905, 0.3892859,
     0.19134735, 0.34307431, 0.02802354, 0.34313329, 0.34310756, 0.21117103, 0.37376585, 0.02896843, 0.37398187,
     0.37405185]
)  # fmt: skip
"""Milliseconds on a T4."""
TIED = ((4, 6), (9, 11), (14, 16))


PUBLISHED = {
    ("size", 0.75): [13, 18],
    ("size", 0.5): [15, 17, 18],
    ("size", 0.25): [14, 15, 16, 17, 18],
    ("bops", 0.75): [8, 13, 15, 18],
    ("bops", 0.5): [3, 8, 12, 13, 14, 15, 16, 17, 18],
    ("bops", 0.25): [3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18],
    ("latency", 0.75): [8, 13, 15, 18],
    ("latency", 0.5): [5, 8, 12, 13, 15, 17, 18],
    ("latency", 0.25): [3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18],
}
"""The layers of 4 bits in its bit_config.py, commit 800ed9c1; the others have 8."""


@pytest.mark.parametrize(("limited", "part"), PUBLISHED)
def test_on_hawqs_arrays_it_is_what_hawq_chose_and_that_of_enumeration(limited: str, part: float) -> None:
    """Part of the way from all at 4 to all at 8 bits, as its notebook has it, downsampling tied to its stage."""
    behind = {other: one for one, other in TIED}
    groups = [
        [one, *(o for o, first in behind.items() if first == one)] for one in range(19) if one not in behind
    ]
    costs = np.stack([TRACE * AT_4_BITS, TRACE * AT_8_BITS], 1)
    used = {
        "size": np.outer(PARAMETERS, [4, 8]),
        "bops": np.outer(MACS, [16, 64]),
        "latency": np.rint(1e6 * np.stack([LATENCY_4, LATENCY_8], 1)),
    }[limited]
    costs, used = (np.stack([table[group].sum(0) for group in groups]) for table in (costs, used))
    least, most = used.sum(0)
    resource = Resource(used.astype(np.int64), least + part * (most - least))
    choices = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    fits = least + choices @ (used[:, 1] - used[:, 0]) <= resource.limit
    summed = costs[:, 0].sum() + choices @ (costs[:, 1] - costs[:, 0])
    expected = choices[np.where(fits, summed, np.inf).argmin()]
    choice = least_cost(costs, [resource])
    assert choice == tuple(expected)
    narrow = [layer for group, option in zip(groups, choice, strict=True) for layer in group if option == 0]
    assert sorted(narrow) == PUBLISHED[limited, part]


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
