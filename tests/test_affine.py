"""The arithmetic of a grid, against torch's own kernels and by its properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from suite.affine import Grid, fake_quantize
from suite.values import SuiteError

BITS = st.integers(2, 16)
SEEDS = st.integers(0, 2**31)
GRIDS = st.builds(Grid, BITS, st.booleans(), st.booleans())


def tensor(seed: int, *shape: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * spread


@given(seed=SEEDS, bits=BITS, signed=st.booleans())
def test_per_tensor_equals_torch_bit_for_bit(seed: int, bits: int, signed: bool) -> None:
    x, grid = tensor(seed, 257), Grid(bits, signed)
    scale, zero_point = grid.affine(x.min(), x.max())
    ours = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
    theirs = torch.fake_quantize_per_tensor_affine(
        x, float(scale), int(zero_point), grid.quant_min, grid.quant_max
    )
    assert torch.equal(ours, theirs)


@given(seed=SEEDS, bits=BITS, axis=st.integers(0, 3))
def test_per_channel_equals_torch_bit_for_bit(seed: int, bits: int, axis: int) -> None:
    x, grid = tensor(seed, 3, 4, 5, 2), Grid(bits)
    rows = x.transpose(0, axis).flatten(1)
    scale, zero_point = grid.affine(rows.amin(1), rows.amax(1))
    ours = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max, axis)
    theirs = torch.fake_quantize_per_channel_affine(
        x, scale, zero_point.int(), axis, grid.quant_min, grid.quant_max
    )
    assert torch.equal(ours, theirs)


@given(seed=SEEDS, bits=BITS)
def test_the_gradient_equals_torchs_inside_and_outside_of_the_range(seed: int, bits: int) -> None:
    grid, upstream = Grid(bits), tensor(seed + 1, 200)
    scale, zero_point = grid.affine(torch.tensor(-1.0), torch.tensor(2.0))
    gradients = []
    for theirs in (False, True):
        x = tensor(seed, 200).requires_grad_()
        if theirs:
            y = torch.fake_quantize_per_tensor_affine(
                x, float(scale), int(zero_point), grid.quant_min, grid.quant_max
            )
        else:
            y = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
        y.backward(upstream)
        gradients.append(x.grad)
    assert torch.equal(*gradients)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_tensors_keep_their_dtype_and_round_as_float32(dtype: torch.dtype) -> None:
    x = tensor(0, 500).to(dtype)
    grid = Grid(4)
    scale, zero_point = grid.symmetric(x.abs().max())
    y = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
    wide = fake_quantize(x.float(), scale, zero_point, grid.quant_min, grid.quant_max)
    assert y.dtype == dtype
    assert torch.equal(y, wide.to(dtype))


@given(bits=BITS, signed=st.booleans(), narrow=st.booleans())
def test_a_grid_has_as_many_integers_as_its_bits_allow(bits: int, signed: bool, narrow: bool) -> None:
    grid = Grid(bits, signed, narrow)
    assert grid.quant_max - grid.quant_min + 1 == 2**bits - narrow


def test_a_tensor_of_zeros_and_one_of_one_value_are_exact() -> None:
    grid = Grid(8)
    for value in (0.0, 5.0, -5.0):
        x = torch.full((3,), value)
        for scale, zero_point in (grid.symmetric(x.abs().max()), grid.affine(x.min(), x.max())):
            y = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
            assert torch.allclose(y, x, rtol=0.005), (value, y)
            assert y.isfinite().all()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_range_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(SuiteError, match="inf or NaN"):
        Grid(8).symmetric(torch.tensor(value))
    with pytest.raises(SuiteError, match="inf or NaN"):
        Grid(8).affine(torch.tensor(0.0), torch.tensor(value))


@pytest.mark.parametrize("bits", [1, 17, 0, -3, 4.0, True])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(SuiteError, match="whole number from 2 to 16"):
        Grid(bits)
