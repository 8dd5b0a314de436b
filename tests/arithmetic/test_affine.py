"""The arithmetic of a grid, against torch's own kernels and by its properties."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from fakes.tensors import BITS, DTYPES, HALVES, NOT_FINITE, SEEDS, tensors
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.ao.quantization import observer as ao

from suite.arithmetic.affine import Grid, fake_quantize
from suite.recipe.errors import SuiteError

GRIDS = st.builds(Grid, BITS, st.booleans(), st.booleans())


def tensor(seed: int, *shape: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * spread


def per_channel(x: Tensor, axis: int | None) -> Tensor:
    """[channels, values]; one channel without an axis."""
    return x.reshape(1, -1) if axis is None else x.movedim(axis, 0).reshape(x.shape[axis], -1)


@given(st.data(), GRIDS, st.sampled_from(DTYPES), st.sampled_from([0.3, 1.0]))
def test_values_and_gradients_equal_torchs_fake_quantize_bit_for_bit(
    data: st.DataObject, grid: Grid, dtype: torch.dtype, share: float
) -> None:
    """In all shapes, along every axis; with 0.3 of the range most values are clipped."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axis = data.draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    x, upstream = (tensor(data.draw(SEEDS), *shape).to(dtype) for _ in range(2))
    rows = per_channel(x.float(), axis) * share
    scale, zero_point = grid.affine(rows.amin(1), rows.amax(1))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    ends = grid.quant_min, grid.quant_max
    if axis is None:
        y = fake_quantize(ours, scale[0], zero_point[0], *ends)
        expected = torch.fake_quantize_per_tensor_affine(theirs, float(scale), int(zero_point), *ends)
    else:
        y = fake_quantize(ours, scale, zero_point, *ends, axis)
        expected = torch.fake_quantize_per_channel_affine(
            theirs, scale, zero_point.int(), axis % x.dim(), *ends
        )
    assert torch.equal(y, expected) and y.dtype == dtype
    (found,) = torch.autograd.grad(y, ours, upstream)
    assert torch.equal(found, torch.autograd.grad(expected, theirs, upstream)[0])


@given(tensors(), BITS, st.sampled_from(["affine signed", "affine", "symmetric"]))
def test_scale_and_zero_point_equal_those_of_torch_aos_observers(x: Tensor, bits: int, kind: str) -> None:
    x, affine = x.float(), kind != "symmetric"
    # torch.ao's symmetric grid has its middle at zero where it is signed and narrow.
    grid = Grid(bits, signed=kind != "affine", narrow=not affine)
    settings: dict[str, Any] = {"dtype": torch.qint32, "eps": torch.finfo(torch.float32).tiny}
    if not affine:
        settings["qscheme"] = torch.per_tensor_symmetric
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ao.MinMaxObserver(quant_min=grid.quant_min, quant_max=grid.quant_max, **settings)
        theirs(x)
        expected = theirs.calculate_qparams()
    found = grid.affine(x.min(), x.max()) if affine else grid.symmetric(x.abs().max())
    assert [float(value) for value in found] == [float(value) for value in expected]


def test_ties_round_to_even_and_the_reciprocal_decides() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    y = fake_quantize(x, torch.tensor(1.0), torch.tensor(0.0), -8, 7)
    assert y.tolist() == [0, 2, 2, 0, -2, -2]


@given(seed=SEEDS, grid=GRIDS)
def test_zero_is_exact_and_twice_is_once(seed: int, grid: Grid) -> None:
    x = torch.cat([tensor(seed, 99), torch.zeros(1)])
    scale, zero_point = grid.affine(x.min(), x.max())
    once = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
    assert once[-1] == 0
    assert torch.equal(once, fake_quantize(once, scale, zero_point, grid.quant_min, grid.quant_max))


@given(seed=SEEDS, bits=BITS)
def test_the_error_is_at_most_half_a_step_and_order_is_kept(seed: int, bits: int) -> None:
    x, grid = tensor(seed, 300).sort().values, Grid(bits, narrow=True)
    scale, zero_point = grid.symmetric(x.abs().max())
    y = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
    assert (y.diff() >= 0).all()
    # float32 rounds the products themselves: allow four units in the last place of the largest value.
    slack = 4 * torch.finfo(torch.float32).eps * float(x.abs().max())
    assert float((y - x).abs().max()) <= float(scale) / 2 + slack
    assert len(y.unique()) <= 2**bits - 1


@given(integers=st.lists(st.integers(-127, 127), min_size=1, max_size=50), exponent=st.integers(-20, 20))
def test_values_that_lie_on_the_grid_come_back(integers: list[int], exponent: int) -> None:
    grid = Grid(8, narrow=True)
    x = torch.tensor([*integers, 127], dtype=torch.float32) * 2.0**exponent
    scale, zero_point = grid.symmetric(x.abs().max())
    assert torch.equal(fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max), x)


@given(tensors(HALVES), GRIDS, st.booleans(), st.sampled_from([1.0, 0.999, 1.5]))
def test_half_tensors_keep_their_dtype_and_round_as_float32_without_overflow(
    x: Tensor, grid: Grid, affine: bool, share: float
) -> None:
    """An end of the grid may lie half a step beyond the largest value, and so beyond the largest half."""
    low, high = x.min().float() * share, x.max().float() * share
    amax = torch.maximum(-low, high)
    assume((high.clamp_min(0) - low.clamp_max(0) if affine else amax).isfinite())  # a wider range is refused
    scale, zero_point = grid.affine(low, high) if affine else grid.symmetric(amax)
    y, wide = (
        fake_quantize(values, scale, zero_point, grid.quant_min, grid.quant_max) for values in (x, x.float())
    )
    largest = torch.finfo(x.dtype).max
    assert y.dtype == x.dtype and y.isfinite().all()
    assert torch.equal(y, wide.clamp(-largest, largest).to(x.dtype))


@given(bits=BITS, signed=st.booleans(), narrow=st.booleans())
def test_a_grid_has_as_many_integers_as_its_bits_allow(bits: int, signed: bool, narrow: bool) -> None:
    grid = Grid(bits, signed, narrow)
    assert grid.quant_max - grid.quant_min + 1 == 2**bits - narrow


@given(GRIDS, st.floats(0.99, 1), st.sampled_from([-1, 1]))
def test_the_largest_float32_is_rounded_without_overflow(grid: Grid, share: float, sign: int) -> None:
    x = torch.tensor([sign * share * torch.finfo(torch.float32).max])
    for scale, zero_point in (grid.symmetric(x.abs()), grid.affine(x.clamp_max(0), x.clamp_min(0))):
        assert fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max).isfinite().all()


@pytest.mark.parametrize("value", [*NOT_FINITE, 1e39])
def test_a_range_that_is_not_finite_in_float32_is_refused(value: float) -> None:
    wrong, right = torch.tensor(value, dtype=torch.float64), torch.tensor(0.0)
    with pytest.raises(
        SuiteError, match="wider than float32 can hold, or holds inf or NaN; .* learning rate"
    ):
        Grid(8).affine(*((wrong, right) if value < 0 else (right, wrong)))
    with pytest.raises(SuiteError, match="inf or NaN"):
        Grid(8).symmetric(wrong.abs())
    half = torch.tensor(2e38)
    with pytest.raises(SuiteError, match="wider than float32"):
        Grid(8).affine(-half, half)


def test_what_is_not_finite_saturates_or_stays_nan_and_passes_no_gradient_on() -> None:
    """Where a range is fixed nothing checks: what is infinite is clipped, a NaN reaches the logits, as wrong."""
    for dtype in DTYPES:
        x = torch.tensor([1.0, *NOT_FINITE], dtype=dtype, requires_grad=True)
        y = fake_quantize(x, torch.tensor(0.5), None, -3, 3)
        assert y[:3].tolist() == [1, 1.5, -1.5] and y[3].isnan()
        y[:3].sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None and x.grad[:3].tolist() == [1, 0, 0]


@pytest.mark.parametrize("bits", [1, 17, 0, -3, 4.0, True])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(SuiteError, match="whole number from 2 to 16"):
        Grid(bits)
