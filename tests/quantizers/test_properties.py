"""What holds of everything that answers a range, whoever adds it: observers, calibrators, ranges of histograms.

Each is found by being there (a subclass of Observer or of Calibrator) and asked the same questions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from fakes.tensors import BITS, HALVES, NOT_FINITE, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from suite import methods
from suite.arithmetic.affine import Grid, fake_quantize
from suite.pytorch_quantization.calib import Calibrator
from suite.ranges import histogram_ranges
from suite.ranges.histogram import observe
from suite.ranges.observers import Observer
from suite.recipe.errors import SuiteError

methods.find()  # a method's file may hold an observer of its own
Range = tuple[Tensor, Tensor]
Watch = Callable[[list[Tensor], Grid], Range]
"""(low, high) after tensors seen one by one."""


def subclasses(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def by_observer(make: Callable[[], Observer], seen: list[Tensor], grid: Grid) -> Range:
    observer = make()
    for x in seen:
        observer(x)
    return observer.range(grid)


def by_calibrator(make: Callable[[int], Any], method: str, seen: list[Tensor], grid: Grid) -> Range:
    calibrator = make(grid.bits)
    for x in seen:
        calibrator.collect(x)
    amax = calibrator.compute_amax(method)
    return -amax, amax


def by_ranges(find: Callable[..., Any], seen: list[Tensor], grid: Grid) -> Range:
    observed = observe(nn.Sequential(nn.Identity()), seen, (nn.Identity,))
    found = find(observed, (grid.bits,))
    low, high = found if isinstance(found, tuple) else (-found, found)
    return low[0, 0], high[0, 0]


BEYOND_THE_VALUES = ("AffineLeastError", "MeanMagnitude", "Deviations")
"""The ends of an affine grid, and first step sizes of what learns: neither lies within the values, by definition."""


def watches() -> Iterator[tuple[str, Watch]]:
    for kind in subclasses(Observer):
        if kind.__name__ in BEYOND_THE_VALUES:
            continue
        yield kind.__name__, partial(by_observer, kind)
        if "axis" in inspect.signature(kind).parameters:
            yield f"{kind.__name__} per channel", partial(by_observer, partial(kind, axis=0))
    for kind in subclasses(Calibrator):
        histogram = "num_bins" in inspect.signature(kind).parameters
        make = partial(kind, num_bins=256) if histogram else kind
        names = ("percentile", "mse", "entropy") if histogram else ("max",)
        for method in names:
            yield f"{kind.__name__} {method}", partial(by_calibrator, make, method)
    for find in (
        histogram_ranges.amax,
        histogram_ranges.percentile,
        histogram_ranges.mse,
        histogram_ranges.affine_mse,
        histogram_ranges.entropy,
    ):
        yield f"ranges.{find.__name__}", partial(by_ranges, find)


WATCHES: dict[str, Watch] = dict(watches())
EACH = pytest.mark.parametrize("watch", WATCHES.values(), ids=WATCHES)
FEW = settings(max_examples=10)


def rounded(x: Tensor, found: Range, grid: Grid, per_channel: bool) -> tuple[Tensor, Tensor]:
    """(`x` on the grid of the range, its step, in a shape that broadcasts to `x`)."""
    low, high = found
    scale, zero_point = grid.symmetric(torch.maximum(-low, high)) if grid.narrow else grid.affine(low, high)
    y = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max, 0 if per_channel else None)
    return y, scale.reshape([-1] + [1] * (x.dim() - 1)) if per_channel else scale


@EACH
@given(x=tensors(), bits=BITS, narrow=st.booleans())
@FEW
def test_every_finite_tensor_has_a_range_that_every_width_can_use(
    watch: Watch, x: Tensor, bits: int, narrow: bool
) -> None:
    """The range lies within the values, zero is exact, and what lies in it is half a step off at most."""
    grid = Grid(bits, narrow=narrow)
    low, high = watch([x], grid)
    per_channel = low.dim() > 0
    assert low.dtype == high.dtype == torch.float32 and low.shape == high.shape
    assert list(low.shape) == ([x.shape[0]] if per_channel else [])
    wide, largest = x.float(), float(x.float().abs().max())
    assert (low <= high).all() and (torch.maximum(-low, high) <= largest * (1 + 1e-6)).all()
    y, step = rounded(x, (low, high), grid, per_channel)
    assert y.dtype == x.dtype and y.isfinite().all() and (y[x == 0] == 0).all()
    inside = ((low if not narrow else -torch.maximum(-low, high)).clamp_max(0), high.clamp_min(0))
    if narrow:
        inside = (inside[0], torch.maximum(-low, high))
    ends = [end.reshape(step.shape) for end in inside]
    # The step, the product and the result are each rounded; a rounded zero_point moves a border by half a step.
    limits = torch.finfo(x.dtype)
    off = step * (0.5 if narrow else 1.0) + 4 * limits.eps * largest + limits.smallest_normal
    within = (wide >= ends[0]) & (wide <= ends[1])
    assert ((y.float() - wide).abs() <= off)[within].all()


@EACH
@given(x=tensors(HALVES), bits=BITS)
@FEW
def test_half_precision_has_the_range_of_the_same_values_in_float32(
    watch: Watch, x: Tensor, bits: int
) -> None:
    found, expected = (watch([values], Grid(bits, narrow=True)) for values in (x, x.float()))
    assert torch.equal(torch.stack(found), torch.stack(expected))


@EACH
@pytest.mark.parametrize("value", NOT_FINITE)
def test_inf_and_nan_anywhere_in_what_counts_are_refused_with_what_to_do(watch: Watch, value: float) -> None:
    for dtype in (torch.float32, *HALVES):
        good = torch.arange(-6.0, 6).reshape(4, 3).to(dtype)
        for index in (0, 7, 11):
            bad = good.clone()
            bad.view(-1)[index] = value
            for seen in ([bad], [good, bad]):
                with pytest.raises(SuiteError, match="inf or NaN.*(learning rate|diverged)"):
                    watch(seen, Grid(8))


@pytest.mark.parametrize("watch", [v for k, v in WATCHES.items() if "per channel" in k])
@given(x=tensors(), bits=BITS)
@FEW
def test_a_channel_has_the_range_that_it_has_alone(watch: Watch, x: Tensor, bits: int) -> None:
    low, high = watch([x], Grid(bits, narrow=True))
    for channel in range(len(x)):
        alone = watch([x[channel : channel + 1]], Grid(bits, narrow=True))
        assert (low[channel], high[channel]) == alone


IN_ORDER = {"MovingMinMax", "MovingPercentile", "Dynamic", "LeastError"}
"""Whose definition is a moving average or the last tensor. NVIDIA's histogram has bins by its first tensor."""


@pytest.mark.parametrize(
    "watch",
    [v for k, v in WATCHES.items() if k.split()[0] not in IN_ORDER | {"HistogramCalibrator"}],
    ids=[k for k in WATCHES if k.split()[0] not in IN_ORDER | {"HistogramCalibrator"}],
)
@given(x=tensors(), bits=BITS, parts=st.integers(1, 4), order=st.randoms(use_true_random=False))
@FEW
def test_the_size_and_the_order_of_the_batches_change_no_bit_of_a_range(
    watch: Watch, x: Tensor, bits: int, parts: int, order: Any
) -> None:
    x = x.reshape(1, -1).expand(2, -1)  # one dimension keeps its size, as channels do
    batches = [part for part in x.tensor_split(parts, dim=1) if part.numel()]
    order.shuffle(batches)
    whole, cut = (watch(seen, Grid(bits, narrow=True)) for seen in ([x], batches))
    assert torch.equal(torch.stack(whole), torch.stack(cut))


def test_everything_that_answers_a_range_is_asked() -> None:
    assert len(WATCHES) == len(list(watches())) >= 6 + 3 + 4 + 5
    assert {kind.__name__ for kind in subclasses(Observer)} >= {"MinMax", "Histogram", *IN_ORDER}
