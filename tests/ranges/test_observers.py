"""Observers against torch.ao's and against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.ao.quantization import observer as ao

from suite.arithmetic.affine import Grid, fake_quantize
from suite.methods.dfq import Dfq
from suite.methods.equalized import Equalized
from suite.methods.lsq import Lsq
from suite.ranges.observers import (
    Dynamic,
    Histogram,
    LeastError,
    MinMax,
    MovingMinMax,
    MovingPercentile,
    Observer,
    observe_over,
)
from suite.ranges.range_search import nth_largest
from suite.ranks import Ranks
from suite.recipe import Method
from suite.recipe.errors import SuiteError
from suite.steps import Insert

GRID = Grid(8)
SEEDS = st.integers(0, 2**31)


def batches(seed: int, count: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 6, 6, generator=generator) * (k + 1) for k in range(count)]


def watch(observer: Observer, tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    for x in tensors:
        observer(x)
    return observer.range(GRID)


@given(SEEDS, st.integers(2, 8))
def test_the_range_of_least_error_is_no_worse_than_any_it_tried(seed: int, bits: int) -> None:
    grid, x = Grid(bits, narrow=True), batches(seed, 1)[0]
    observer = LeastError(axis=0)
    observer(x)
    _, found = observer.range(grid)

    def errors(amax: Tensor) -> Tensor:
        scale, _ = grid.symmetric(amax)
        rounded = fake_quantize(x, scale, None, grid.quant_min, grid.quant_max, axis=0)
        return (rounded - x).double().square().sum((1, 2, 3))

    largest = x.abs().amax((1, 2, 3))
    tried = torch.stack([errors(largest * 2 ** (-k / 16)) for k in range(33)])
    assert torch.allclose(errors(found), tried.amin(0), rtol=1e-5, atol=0)


@given(SEEDS, st.integers(2, 4), st.sampled_from([None, 0]))
def test_over_many_octaves_no_finer_search_finds_a_range_of_less_error(
    seed: int, bits: int, axis: int | None
) -> None:
    """Weights with a few that are far larger than the rest, as those of trained networks are."""
    grid, x = Grid(bits), batches(seed, 1)[0] ** 3
    observer = LeastError(axis, octaves=12)
    observer(x)
    _, found = observer.range(grid)

    def errors(amax: Tensor) -> Tensor:
        scale, _ = grid.symmetric(amax)
        rounded = fake_quantize(x, scale, None, grid.quant_min, grid.quant_max, axis=axis)
        squared = (rounded - x).double().square()
        return squared.sum() if axis is None else squared.sum((1, 2, 3))

    largest = x.abs().amax() if axis is None else x.abs().amax((1, 2, 3))
    tried = torch.stack([errors(largest * 2 ** (-k / 64)) for k in range(12 * 64 + 1)])
    assert (errors(found) <= 1.05 * tried.amin(0)).all()


@pytest.mark.parametrize("method", [Lsq(2, 2), Equalized(2, 2), Dfq(2, 2)], ids=lambda method: method.name)
def test_the_range_of_a_weight_of_two_bits_is_not_at_the_end_of_its_search(method: Method) -> None:
    """The convolutions of ResNet-20 as trained have weights four times as large as the best range and more."""
    x = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0] = 12.0
    insert = next(step for step in method.steps() if isinstance(step, Insert))
    quantizer = insert.weights.quantizer(2)
    assert quantizer.observer is not None
    quantizer.observer(x)
    _, amax = quantizer.observer.range(quantizer.grid)
    assert 12 / 2**12 < float(amax) < 12 / 4


@given(SEEDS)
def test_min_max_equals_torch_ao(seed: int) -> None:
    theirs = ao.MinMaxObserver()
    for x in batches(seed):
        theirs(x)
    low, high = watch(MinMax(), batches(seed))
    assert torch.equal(low, theirs.min_val) and torch.equal(high, theirs.max_val)


@given(SEEDS, st.integers(0, 3))
def test_min_max_per_channel_equals_torch_ao(seed: int, axis: int) -> None:
    theirs = ao.PerChannelMinMaxObserver(ch_axis=axis)
    for x in batches(seed):
        theirs(x)
    low, high = watch(MinMax(axis), batches(seed))
    assert torch.equal(low, theirs.min_val) and torch.equal(high, theirs.max_val)


@given(SEEDS, st.sampled_from([0.01, 0.1, 0.5]))
def test_moving_average_equals_torch_ao(seed: int, momentum: float) -> None:
    theirs = ao.MovingAverageMinMaxObserver(averaging_constant=momentum)
    for x in batches(seed):
        theirs(x)
    low, high = watch(MovingMinMax(momentum), batches(seed))
    # The same formula; lerp rounds once less than min_val + c * (x - min_val).
    assert torch.allclose(low, theirs.min_val, rtol=1e-6) and torch.allclose(high, theirs.max_val, rtol=1e-6)


@given(SEEDS)
def test_dynamic_ranges_holds_the_last_tensor_only(seed: int) -> None:
    low, high = watch(Dynamic(), batches(seed))
    assert (low, high) == torch.aminmax(batches(seed)[-1])


@given(SEEDS, st.sampled_from([0.5, 0.99, 0.999, 0.9999, 1.0]))
def test_percentile_of_one_tensor_equals_kthvalue_as_in_source_002(seed: int, percentile: float) -> None:
    x = batches(seed)[0]
    rank = max(1, int(percentile * x.numel()))
    low, high = watch(MovingPercentile(percentile), [x])
    assert torch.equal(high, torch.kthvalue(x.abs().flatten(), rank).values)
    assert torch.equal(low, torch.maximum(-high, x.min()))


@given(SEEDS)
def test_percentile_moves_as_in_source_002(seed: int) -> None:
    expected: Tensor | None = None
    for x in batches(seed):
        now = torch.kthvalue(x.abs().flatten(), int(0.999 * x.numel())).values
        expected = now if expected is None else 0.9 * expected + 0.1 * now
    _, high = watch(MovingPercentile(0.999), batches(seed))
    assert expected is not None and torch.allclose(high, expected, rtol=1e-6)


@given(SEEDS, st.integers(1, 7), st.permutations(range(5)))
def test_a_histogram_does_not_depend_on_the_batches(seed: int, parts: int, order: list[int]) -> None:
    tensors = batches(seed)
    whole, cut = Histogram(bins=64), Histogram(bins=64)
    whole(torch.cat(tensors))
    for k in order:
        for piece in tensors[k].flatten().tensor_split(parts):
            cut(piece)
    assert torch.equal(whole.counts, cut.counts) and torch.equal(whole.edge, cut.edge)
    assert torch.equal(whole.range(GRID)[1], cut.range(GRID)[1])
    assert int(whole.counts.sum()) == sum(x.numel() for x in tensors)


@given(SEEDS, st.integers(2, 8))
def test_the_histogram_finds_the_amax_of_least_error_among_its_candidates(seed: int, bits: int) -> None:
    x, grid = batches(seed)[0], Grid(bits, narrow=True)
    observer = Histogram()
    observer(x)

    def error(amax: Tensor) -> float:
        scale, zero_point = grid.symmetric(amax)
        return float(
            (fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max) - x).double().square().sum()
        )

    best = min(error(x.abs().max() * k / 200) for k in range(1, 201))
    # Values count as the middle of their bin, 1/4096 of the range; the error found is that much off at most.
    assert error(observer.range(grid)[1]) <= best * 1.05 + 1e-3


def test_the_histograms_range_is_nearer_the_optimum_than_min_max_at_four_bits() -> None:
    torch.manual_seed(0)
    x = torch.randn(20_000)
    observer, grid = Histogram(), Grid(4, narrow=True)
    observer(x)
    _, amax = observer.range(grid)
    assert (
        2.2 < amax < 3.2
    )  # the optimal clip of a unit normal at 15 levels is about 2.7 sigma, its extreme about 4
    assert amax < x.abs().max()


@given(SEEDS, st.sampled_from(["contiguous", "channels last", "rectified", "transposed"]))
def test_a_histogram_has_each_value_in_the_bin_of_its_magnitude(seed: int, kind: str) -> None:
    """Of more values than a block has."""
    x = torch.randn(4, 16, 36, 36, generator=torch.Generator().manual_seed(seed))
    x = {"rectified": x.relu(), "transposed": x.transpose(1, 3)}.get(kind, x)
    x = x.contiguous(memory_format=torch.channels_last) if kind == "channels last" else x
    observer = Histogram(bins=64)
    observer(x)
    index = (x.abs() / observer.edge * 64).long().clamp(max=63) + 64 * (x > 0)
    assert torch.equal(observer.counts.flatten(), torch.bincount(index.flatten(), minlength=128))


@given(SEEDS, st.integers(1, 400), st.sampled_from([1, 2, 64]))
def test_the_nth_largest_is_that_of_all_sorted(seed: int, number: int, distinct: int) -> None:
    """Of values that are all different, and of few that occur often."""
    values = torch.randn(20_003, generator=torch.Generator().manual_seed(seed))
    values = values if distinct == 64 else (values * distinct).round().abs()
    assert nth_largest(values, number) == values.sort(descending=True).values[number - 1]


def test_counts_beyond_two_to_the_24_stay_exact() -> None:
    observer = Histogram(bins=16)
    observer(torch.ones(2**20))
    for _ in range(17):
        observer.counts += observer.counts
    observer(torch.ones(1))
    assert int(observer.counts.sum()) == 2**37 + 1


@pytest.mark.parametrize("value", [0.0, 1e-36, -1e-30, 1e38, 1e-45])
def test_a_histogram_takes_a_layer_that_died_or_nearly_overflowed(value: float) -> None:
    observer = Histogram()
    observer(torch.tensor([0.0, value, value / 2]))
    observer(torch.tensor([0.0, 1e-3]))
    assert int(observer.counts.sum()) == 5
    assert observer.range(GRID)[1].isfinite()


@pytest.mark.parametrize("make", [MinMax, MovingMinMax, Dynamic, MovingPercentile, Histogram])
def test_an_observer_that_saw_nothing_or_an_empty_tensor_says_so(make: type[Observer]) -> None:
    with pytest.raises(SuiteError, match="saw no tensor"):
        make().range(GRID)
    with pytest.raises(SuiteError, match="empty tensor"):
        make()(torch.zeros(0, 3))


def test_observers_that_need_one_rank_refuse_several() -> None:
    with pytest.raises(SuiteError, match="Histogram observes on one rank only"):
        observe_over(torch.nn.Sequential(Histogram()), Ranks(0, 0, 2))
