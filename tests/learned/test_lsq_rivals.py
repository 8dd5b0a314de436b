"""LSQ+, PACT, DoReFa, EWGS and APoT: levels and gradients in closed form."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from fakes.tensors import SEEDS, gradients, randn
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from suite.arithmetic.affine import Grid
from suite.learned.apot import ApotInput, ApotWeight
from suite.learned.ewgs import Ewgs, EwgsWeight, ewgs
from suite.learned.lsq import lsq
from suite.learned.lsq_plus import Deviations, LsqPlus
from suite.learned.pact import DorefaInput, DorefaWeight, Pact, dorefa_weight, pact
from suite.learned.quantizer import LearnedQuantizer, Learning
from suite.ranges.observers import Dynamic

BITS = st.integers(2, 8)
HOW = Learning()


# LSQ+


@given(SEEDS, BITS)
def test_lsq_plus_with_an_offset_of_zero_is_lsq_bit_by_bit(seed: int, bits: int) -> None:
    grid, grad = Grid(bits, signed=False), randn(4, 32, seed=seed + 1)
    x, scale = randn(4, 32, seed=seed).requires_grad_(), torch.tensor(0.1, requires_grad=True)
    offset = torch.zeros((), requires_grad=True)
    with_offset, without = lsq(x, scale, grid, 0.01, offset), lsq(x, scale, grid, 0.01)
    assert torch.equal(with_offset, without)
    *pair, _ = gradients(with_offset, [x, scale, offset], grad)
    assert all(map(torch.equal, pair, gradients(without, [x, scale], grad)))


@given(SEEDS, st.floats(-1, 1))
def test_the_offset_moves_the_levels_and_learns_from_what_is_clipped(seed: int, shift: float) -> None:
    grid, grad = Grid(3, signed=False), randn(4, 32, seed=seed + 1)
    x, scale = randn(4, 32, seed=seed), torch.tensor(0.2)
    offset = torch.tensor(shift, requires_grad=True)
    y = lsq(x, scale, grid, 0.5, offset)
    assert torch.allclose(y, lsq(x - offset, scale, grid, 1.0) + offset, atol=1e-6)
    v = (x - shift) / scale
    clipped = (v <= 0) | (v >= 7)
    near_an_end = ((v.abs() < 1e-5) | ((v - 7).abs() < 1e-5)).any()
    scale.requires_grad_()
    (found,) = gradients(lsq(x, scale, grid, 0.5, offset), [offset], grad)
    assert near_an_end or torch.allclose(found, 0.5 * grad[clipped].sum(), atol=1e-5)


def test_a_weight_of_lsq_plus_begins_three_deviations_out() -> None:
    x = randn(8, 100, seed=0) + 0.5
    amax = max(abs(x.mean() - 3 * x.std(correction=0)), abs(x.mean() + 3 * x.std(correction=0)))
    watching = Deviations()
    watching(x)
    scale, _ = Grid(4).symmetric(watching.range(Grid(4))[1])
    assert torch.allclose(scale, amax / 8)
    by_row = Deviations(axis=0)
    by_row(x)
    assert by_row.range(Grid(4))[1].shape == (8,)


def test_lsq_plus_ends_with_the_zero_point_of_its_offset() -> None:
    quantizer = LsqPlus(Grid(4, signed=False), Dynamic())
    quantizer.fix(torch.tensor(-0.75), torch.tensor(3.0), never_negative=False)
    quantizer.learn()
    assert sorted(dict(quantizer.named_parameters())) == ["offset", "scale"] and quantizer.offset == -0.75
    quantizer.offset.data.fill_(-0.7)
    x = randn(4, 64, seed=0)
    rounded = quantizer(x)
    quantizer.freeze()
    assert torch.equal(quantizer(x), rounded) and torch.allclose(quantizer.zero_point, torch.tensor(2.8))
    low, high = quantizer.grid.limits(quantizer.scale, quantizer.zero_point)
    assert torch.allclose(torch.stack([low, high]), torch.tensor([-0.7, 15 * 0.25 - 0.7]))


# PACT


@given(SEEDS, BITS, st.floats(0.1, 3))
def test_pact_rounds_below_its_clip_and_the_clip_learns_by_counting(
    seed: int, bits: int, clip: float
) -> None:
    x, alpha = randn(4, 64, seed=seed).requires_grad_(), torch.tensor(clip, requires_grad=True)
    n = 2**bits - 1
    y = pact(x, alpha, Grid(bits, signed=False))
    assert (
        torch.allclose(y, (x.clamp(0, clip) * n / clip).round() * clip / n, atol=clip / n * 1e-3 + 1e-6)
        or bits > 6
    )
    of_x, of_alpha = gradients(y, [x, alpha], torch.ones_like(x))
    assert of_alpha == (x >= clip).sum()
    assert torch.equal(of_x, ((x > 0) & (x < clip)).float())


def test_pact_at_the_finest_grid_is_a_clamp() -> None:
    x = randn(1000, seed=0)
    y = pact(x, torch.tensor(1.5), Grid(16, signed=False))
    assert (y - x.clamp(0, 1.5)).abs().max() <= 1.5 / 65535 / 2 * 1.01


def test_pact_clips_what_may_be_negative_on_both_sides() -> None:
    x, alpha = torch.tensor([-5.0, -0.4, 0.4, 5.0], requires_grad=True), torch.tensor(2.0, requires_grad=True)
    y = pact(x, alpha, Grid(3))
    assert torch.allclose(y, torch.tensor([-2, -2 / 3, 2 / 3, 2]))
    of_x, of_alpha = gradients(y, [x, alpha], torch.tensor([1.0, 1.0, 1.0, 10.0]))
    assert of_x.tolist() == [0, 1, 1, 0] and of_alpha == 9


# DoReFa


@given(SEEDS, BITS)
def test_dorefa_weights_have_the_levels_of_the_formula_and_none_is_zero(seed: int, bits: int) -> None:
    w, n = randn(16, 16, seed=seed).requires_grad_(), 2**bits - 1
    y = dorefa_weight(w, n)
    bent = torch.tanh(w) / (2 * torch.tanh(w).abs().max()) + 0.5
    assert torch.equal(y, 2 * (bent * n).round() / n - 1)
    assert (
        set(((y + 1) / 2 * n).round().int().flatten().tolist()) <= set(range(n + 1))
        and y.abs().min() > 0.5 / n
    )
    (of_w,) = gradients(y, [w], torch.ones_like(w))
    expected = (1 - torch.tanh(w) ** 2) / torch.tanh(w).abs().max()
    assert torch.allclose(of_w, expected, atol=1e-6)  # 1 - tanh^2 loses digits where tanh is nearly 1


def test_dorefa_inputs_are_clipped_to_one_and_an_image_keeps_its_range() -> None:
    x = randn(4, 64, seed=0)
    quantizer = DorefaInput(Grid(2), Dynamic(), unsigned=True)
    quantizer.fix(torch.tensor(0.0), torch.tensor(15.0), never_negative=True)
    assert torch.allclose(quantizer(x.relu()), (x.clamp(0, 1) * 3).round() / 3)
    quantizer.fix(torch.tensor(-2.5), torch.tensor(2.5), never_negative=False)
    assert set(quantizer(x).unique().tolist()) == {-2.5, 0.0, 2.5}


# EWGS


def by_torch(x: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """The same forward, with the straight-through estimator, of torch's own operations."""
    part = ((x - low) / (high - low)).clamp(0, 1)
    return part + ((part * steps).round() / steps - part).detach()


@given(SEEDS, BITS)
def test_ewgs_without_scaling_is_the_straight_through_estimator(seed: int, bits: int) -> None:
    x, grad = randn(4, 64, seed=seed).requires_grad_(), randn(4, 64, seed=seed + 1)
    low, high = (torch.tensor(end, requires_grad=True) for end in (-1.1, 0.9))
    zero, one, steps = torch.zeros(()), torch.ones(()), 2**bits - 1
    mine, theirs = ewgs(x, low, high, zero, one, steps, 0.0), by_torch(x, low, high, steps)
    assert torch.allclose(mine, theirs, atol=1e-6)
    for found, expected in zip(
        gradients(mine, [x, low, high], grad), gradients(theirs, [x, low, high], grad), strict=True
    ):
        assert torch.allclose(found, expected, atol=2e-5, rtol=1e-4)


@given(SEEDS, st.floats(0, 1))
def test_ewgs_scales_each_gradient_by_where_rounding_put_the_value(seed: int, scaling: float) -> None:
    x, grad = (
        torch.rand(64, generator=torch.Generator().manual_seed(seed)).requires_grad_(),
        randn(64, seed=seed),
    )
    zero, one = torch.zeros(()), torch.ones(())
    (found,) = gradients(ewgs(x, zero, one, zero, one, 3, scaling), [x], grad)
    expected = grad * (1 + scaling * grad.sign() * (x - (x * 3).round() / 3))
    inside = (x > 0) & (x < 1)
    assert torch.allclose(found[inside], expected[inside], atol=1e-6)


def test_ewgs_begins_at_the_range_it_was_given() -> None:
    x = randn(4, 256, seed=0)
    weight = EwgsWeight(Grid(4), Dynamic(), None, False, HOW)
    weight.scaling = 0.0
    weight(x)
    weight.learn()
    low, high = weight.low, weight.high
    assert high == x.abs().max() == -low == weight.gain and len(list(weight.parameters())) == 3
    y = weight(x)
    assert (y - x).abs().max() <= high / 15 * 1.001 and y.abs().min() > 0 and len(y.unique()) <= 16
    weight.freeze()
    assert torch.allclose(weight.grid.limits(weight.scale, weight.zero_point)[1], high)
    inputs = Ewgs(Grid(4), Dynamic(), None, True, HOW)
    inputs.scaling = 0.0
    inputs(x.relu())
    inputs.learn()
    assert (inputs(x.relu()) - x.relu()).abs().max() <= x.max() / 15 * 0.501 and inputs(torch.zeros(1)) == 0


# APoT


# All


def kinds() -> dict[str, LearnedQuantizer]:
    grid: dict[str, Any] = {"grid": Grid(4), "observer": Dynamic()}
    return {
        "LSQ+": LsqPlus(Grid(4, signed=False), Dynamic()),
        "PACT": Pact(**grid, unsigned=True),
        "DoReFa weight": DorefaWeight(**grid),
        "DoReFa input": DorefaInput(**grid, unsigned=True),
        "EWGS weight": EwgsWeight(Grid(4), Dynamic(), None, False, HOW),
        "EWGS input": Ewgs(Grid(4), Dynamic(), None, True, HOW),
        "APoT weight": ApotWeight(**grid),
        "APoT input": ApotInput(**grid, unsigned=True),
    }


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_as_its_float32_values_are(name: str, dtype: torch.dtype) -> None:
    quantizer, x = kinds()[name], randn(8, 32, seed=0).relu().to(dtype)
    quantizer(x.float())
    quantizer.learn()
    half, wide = copy.deepcopy(quantizer), copy.deepcopy(quantizer)
    y = half(x)
    assert y.dtype == dtype and torch.equal(y, wide(x.float()).to(dtype))
    x.requires_grad_()
    half(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.dtype == dtype
    assert all(
        p.grad is not None and p.grad.isfinite() and p.grad.dtype == torch.float32 for p in half.parameters()
    )


@pytest.mark.parametrize("name", kinds())
def test_a_tensor_of_zeros_stays_finite(name: str) -> None:
    quantizer, x = kinds()[name], torch.zeros(4, 8, requires_grad=True)
    quantizer(x)
    quantizer.learn()
    y = quantizer(x)
    y.sum().backward()
    assert y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()
