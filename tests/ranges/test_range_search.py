"""The searches for a range against brute force."""

from __future__ import annotations

import math

import torch
from fakes.tensors import randn
from hypothesis import given
from hypothesis import strategies as st

from suite.arithmetic.affine import Grid, fake_quantize
from suite.ranges.range_search import bin_reaching, divergences, least_error, rank

SEEDS = st.integers(0, 2**31)


def plain_divergence(counts: list[int], cut: int, levels: int) -> float:
    """KL divergence of one cut, bin by bin: what is done for all cuts in sums of prefixes."""
    counts = [counts[1], *counts[1:]]
    p = [*counts[: cut - 1], sum(counts[cut - 1 :])]
    q = []
    for one in range(cut):
        cell = [other for other in range(cut) if other * levels // cut == one * levels // cut]
        filled = [counts[other] for other in cell if counts[other]]
        q.append(sum(filled) / len(filled) if counts[one] else 0.0)
    if not sum(q):
        return math.inf
    total = 0.0
    for one, other in zip(p, q, strict=True):
        if one and not other:
            return math.inf
        if one:
            total += one / sum(p) * math.log((one / sum(p)) / (other / sum(q)))
    return total


@given(
    counts=st.lists(st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 10**6)), min_size=3, max_size=40),
    levels=st.sampled_from([2, 4, 8, 64]),
)
def test_divergences_of_all_cuts_at_once_equal_one_cut_after_another(counts: list[int], levels: int) -> None:
    counts = [*counts, 7]
    cuts = torch.arange(1, len(counts) + 1)
    found = divergences(torch.tensor(counts, dtype=torch.float64), cuts, levels)
    plain = torch.tensor([plain_divergence(counts, int(cut), levels) for cut in cuts], dtype=torch.float64)
    assert torch.allclose(found, plain, rtol=1e-9, atol=1e-12)


@given(seed=SEEDS, bits=st.integers(2, 8), axis=st.sampled_from([None, 0, 1]))
def test_the_candidate_of_least_error_is_found_for_the_tensor_and_for_each_channel(
    seed: int, bits: int, axis: int | None
) -> None:
    x, grid = randn(4, 5, 6, seed=seed), Grid(bits, narrow=True)
    parts = [x] if axis is None else list(x.unbind(axis))
    candidates = torch.stack([part.abs().max() for part in parts]) * torch.linspace(1, 0.1, 30)[:, None]
    found = least_error(x, candidates[:, 0] if axis is None else candidates, grid, axis)
    for part, tried, chosen in zip(parts, candidates.T, found.reshape(-1), strict=True):
        errors = {}
        for amax in tried:
            y = fake_quantize(part, *grid.symmetric(amax), grid.quant_min, grid.quant_max)
            errors[float(amax)] = float((y - part).double().square().sum())
        assert errors[float(chosen)] <= min(errors.values()) * (1 + 1e-5)


@given(seed=SEEDS, bits=st.integers(2, 8))
def test_a_value_that_is_counted_three_times_weighs_as_three_values(seed: int, bits: int) -> None:
    x, grid = randn(50, seed=seed).double(), Grid(bits)
    counts = torch.randint(1, 4, (50,), generator=torch.Generator().manual_seed(seed))
    candidates = x.abs().max() * torch.linspace(1, 0.1, 30, dtype=torch.float64)
    repeated = x.repeat_interleave(counts)
    assert least_error(x, candidates, grid, counts=counts) == least_error(repeated, candidates, grid)


def test_of_equal_errors_the_first_candidate_counts() -> None:
    x, grid = torch.tensor([-1.0, 0.0, 1.0]), Grid(3, narrow=True)
    for candidates in ([1.0, 3.0], [3.0, 1.0]):
        assert least_error(x, torch.tensor(candidates), grid) == candidates[0]


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=60), fraction=st.floats(0.01, 1))
def test_a_percentile_of_counts_is_kthvalue_of_the_values(values: list[int], fraction: float) -> None:
    x = torch.tensor(values)
    k = rank(fraction, len(x))
    assert bin_reaching(torch.bincount(x, minlength=30), k) == torch.kthvalue(x, k).values
