"""The assignment of widths is what HAWQ-V3 (2011.10680) published for its arrays: 18 choices for two networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suite.sensitivity import width_search
from suite.sensitivity.width_search import Resource, least_cost

PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "hawq.json").read_text())
CHOICES = [(name, words) for name in ("resnet18", "resnet50") for words in PUBLISHED[name]["narrow"]]
COSTLIER = {("resnet50", "size 0.25"): [39]}
"""Which layers HAWQ made narrow beyond the least cost: with this one of 8 bits its limit holds as well."""

Problem = tuple[list[list[int]], np.ndarray, Resource]


def problem(name: str, words: str) -> Problem:
    """The groups of layers, their costs at 4 and 8 bits, and the limit: that part of the way from all at 4 to all at 8
    bits. As in HAWQ's notebook a convolution of a shortcut has the width of the first one of its block."""
    found: dict[str, Any] = PUBLISHED[name]
    behind = {other: one for one, other in found["tied"]}
    layers = range(len(found["trace"]))
    groups = [
        [one, *(other for other in behind if behind[other] == one)] for one in layers if one not in behind
    ]
    (limited, part), trace = words.split(), np.array(found["trace"])
    costs = np.stack([trace * found["error_4"], trace * found["error_8"]], 1)
    used = {
        "size": np.outer(found["parameters"], [4, 8]),
        "bops": np.outer(found["macs"], [16, 64]),
        "latency": np.rint(1e8 * np.stack([found["latency_4"], found["latency_8"]], 1)),
    }[limited].astype(np.int64)
    costs, used = (np.stack([table[group].sum(0) for group in groups]) for table in (costs, used))
    least, most = used.sum(0)
    return groups, costs, Resource(used, least + float(part) * (most - least))


@pytest.mark.parametrize(("name", "words"), CHOICES)
def test_on_hawqs_arrays_it_is_what_hawq_chose(name: str, words: str) -> None:
    groups, costs, resource = problem(name, words)
    choice = least_cost(costs, [resource])
    narrow = [layer for group, option in zip(groups, choice, strict=True) for layer in group if option == 0]
    assert sorted([*narrow, *COSTLIER.get((name, words), [])]) == PUBLISHED[name]["narrow"][words]
    assert resource.holds(choice)


@pytest.mark.parametrize("words", PUBLISHED["resnet18"]["narrow"])
def test_on_hawqs_arrays_of_a_resnet18_it_is_that_of_enumeration(words: str) -> None:
    _, costs, resource = problem("resnet18", words)
    choices = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    fits = resource.used[:, 0].sum() + choices @ np.diff(resource.used)[:, 0] <= resource.limit
    summed = costs[:, 0].sum() + choices @ np.diff(costs)[:, 0]
    assert least_cost(costs, [resource]) == tuple(choices[np.where(fits, summed, np.inf).argmin()])


@pytest.mark.parametrize("budget", [2.25, 3.0, 7.0])
def test_a_resnet50_is_solved_long_before_the_search_gives_up(
    budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its layers at 36 pairs of widths within two budgets; a bit less is four times the squared error, and inputs
    cost as much as weights do."""
    monkeypatch.setattr(width_search, "SECONDS", width_search.SECONDS / 10)
    found, bits = PUBLISHED["resnet50"], np.array([2, 3, 4, 5, 6, 8])
    weights, macs, trace, error = (
        np.array(found[name]) for name in ("parameters", "macs", "trace", "error_4")
    )
    by_bits = np.outer(trace * error, 4.0 ** (4 - bits))
    costs = (by_bits[:, :, None] + by_bits[:, None]).reshape(len(trace), 36)
    size = Resource(np.outer(weights, np.repeat(bits, 6)), budget * weights.sum())
    bops = Resource(np.outer(macs, np.outer(bits, bits)), budget**2 * macs.sum())
    choice = least_cost(costs, [size, bops])
    assert size.holds(choice) and bops.holds(choice)
    uniform = by_bits[:, bits <= budget][:, -1].sum() * 2
    assert costs[np.arange(len(trace)), list(choice)].sum() < uniform
