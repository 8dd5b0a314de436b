"""LSQ: the forward pass of torch's learnable fake quantize, the gradients of the paper."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from fakes.tensors import SEEDS, randn
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from suite.arithmetic.affine import Grid, by_channel
from suite.learned.lsq import Lsq, gradient_scale, lsq
from suite.learned.quantizer import Learned, LearnedQuantizer, Learning, learned_values
from suite.ranges.histogram import observe
from suite.ranges.mean_magnitude import MeanMagnitude, mean_magnitude
from suite.ranges.observers import Dynamic

GRIDS = st.builds(Grid, st.integers(2, 8), st.booleans())


def of_torch(x: Tensor, scale: Tensor, grid: Grid, factor: float) -> Tensor:
    ends = grid.quant_min, grid.quant_max
    zero = torch.zeros(1)
    result: Tensor = torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, *ends, factor)  # type: ignore[attr-defined]
    return result


def gradients(x: Tensor, scale: Tensor, grad: Tensor, grid: Grid, factor: float) -> tuple[Tensor, Tensor]:
    """(d/dx, d/dscale) of lsq."""
    x, scale = x.clone().requires_grad_(), scale.clone().requires_grad_()
    lsq(x, scale, grid, factor).backward(grad)  # type: ignore[no-untyped-call]
    assert x.grad is not None and scale.grad is not None
    return x.grad, scale.grad


def by_the_paper(x: Tensor, scale: Tensor, grad: Tensor, grid: Grid, factor: float) -> tuple[Tensor, Tensor]:
    """Equations 3 and 5 of arXiv 1902.08153, in float64."""
    v = x.double() / scale.double()
    below, above = v <= grid.quant_min, v >= grid.quant_max
    step = torch.where(below, grid.quant_min, torch.where(above, grid.quant_max, v.round() - v))
    return grad * (~below & ~above), (grad.double() * step).sum() * factor


@given(SEEDS, GRIDS, st.floats(1e-3, 10))
def test_forward_is_torchs_learnable_fake_quantize_bit_by_bit(seed: int, grid: Grid, size: float) -> None:
    x, scale = randn(4, 3, 5, seed=seed), torch.tensor([size])
    assert torch.equal(lsq(x, scale, grid, 0.1), of_torch(x, scale, grid, 0.1))


@given(SEEDS, GRIDS, st.floats(0.02, 2))
def test_gradients_are_those_of_the_paper(seed: int, grid: Grid, size: float) -> None:
    x, scale, grad = randn(16, 64, seed=seed), torch.tensor(size), randn(16, 64, seed=seed + 1)
    found, expected = (which(x, scale, grad, grid, 0.01) for which in (gradients, by_the_paper))
    near_an_end = ((x / scale - grid.quant_min).abs() < 1e-5) | ((x / scale - grid.quant_max).abs() < 1e-5)
    assert torch.equal(found[0][~near_an_end], expected[0][~near_an_end])
    assert near_an_end.any() or abs(found[1] - expected[1]) < 1e-6 * max(1, 0.01 * grad.abs().sum())


def test_torch_masks_on_the_rounded_value_and_the_paper_on_the_value() -> None:
    """What lies within half a step beyond an end is outside for the paper, and rounds to the end for torch."""
    grid, scale = Grid(4), torch.tensor([0.13])
    x, ones = randn(4096, seed=0), torch.ones(4096)
    of_paper, of_scale = gradients(x, scale, ones, grid, 1.0)
    theirs, their_scale = x.clone().requires_grad_(), scale.clone().requires_grad_()
    of_torch(theirs, their_scale, grid, 1.0).backward(ones)  # type: ignore[no-untyped-call]
    assert theirs.grad is not None and their_scale.grad is not None
    v = x / scale
    between = ((v > grid.quant_max) & (v < grid.quant_max + 0.5)) | ((v < -8) & (v > -8.5))
    assert torch.equal(of_paper != theirs.grad, between) and 50 < between.sum() < 200
    # As torch has it, what is between counts as inside: round(v) - v instead of the end.
    ends = torch.where(v > 0, grid.quant_max, grid.quant_min)
    difference = torch.where(between, v.round() - v - ends, 0.0).double().sum()
    assert their_scale.grad.item() == pytest.approx(of_scale.item() + difference.item(), abs=1e-3)


def test_at_the_ends_the_value_gets_no_gradient_and_the_step_gets_the_end() -> None:
    grid, x = Grid(3, signed=False), torch.tensor([-1.0, 0.0, 3.5, 7.0, 8.0])
    of_x, of_scale = gradients(x, torch.tensor(1.0), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]), grid, 1.0)
    assert of_x.tolist() == [0, 0, 0, 0, 0] and of_scale.item() == 14


def test_each_channel_has_its_own_step_and_gradient() -> None:
    x, scale, grad, grid = randn(4, 3, 3, 3, seed=0), torch.rand(4) + 0.1, randn(4, 3, 3, 3, seed=1), Grid(3)
    x.requires_grad_()
    scale.requires_grad_()
    lsq(x, by_channel(scale, x, 0), grid, 0.5).backward(grad)  # type: ignore[no-untyped-call]
    assert x.grad is not None and scale.grad is not None
    for row in range(4):
        one = gradients(x[row].detach(), scale[row].detach(), grad[row], grid, 0.5)
        assert torch.equal(x.grad[row], one[0]) and torch.allclose(scale.grad[row], one[1], atol=1e-6)


@given(SEEDS, st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_is_rounded_as_its_float32_values_are(seed: int, dtype: torch.dtype) -> None:
    x, grid, scale = randn(8, 8, seed=seed).to(dtype), Grid(4), torch.tensor(0.13)
    assert torch.equal(lsq(x, scale, grid, 1.0), lsq(x.float(), scale, grid, 1.0).to(dtype))
    of_x, of_scale = gradients(x, scale, torch.ones_like(x), grid, 1.0)
    wide_x, wide_scale = gradients(x.float(), scale, torch.ones(8, 8), grid, 1.0)
    assert of_x.dtype == dtype and of_scale.dtype == torch.float32
    assert torch.equal(of_x.float(), wide_x) and torch.equal(of_scale, wide_scale)


def test_the_gradient_is_scaled_by_the_values_of_a_weight_and_of_one_image() -> None:
    grid, weight = Grid(3), torch.zeros(8, 4, 3, 3)
    assert gradient_scale(weight, grid, None, of_weight=True) == 1 / math.sqrt(288 * 3)
    assert gradient_scale(weight, grid, 0, of_weight=True) == 1 / math.sqrt(36 * 3)
    for batch in (1, 2, 128):
        x = torch.zeros(batch, 4, 5, 5)
        assert gradient_scale(x, Grid(3, signed=False), None, of_weight=False) == 1 / math.sqrt(100 * 7)


def test_the_first_step_of_the_paper_is_found_in_a_tensor_and_in_histograms() -> None:
    x = randn(64, 3, 8, 8, seed=0).relu()
    expected = 2 * x.mean() / math.sqrt(15)
    watching = MeanMagnitude()
    watching(x)
    low, high = watching.range(Grid(4, signed=False))
    assert torch.allclose(high / 15, expected) and torch.equal(low, -high)
    seen = observe(nn.Sequential(nn.Conv2d(3, 4, 3)), x.split(16), (nn.Conv2d,))
    amax = mean_magnitude(seen, [4, 2], unsigned=True)
    assert amax.shape == (1, 2)
    ends = torch.tensor([15.0, 3.0])
    assert torch.allclose(amax[0] / ends, 2 * x.mean() / ends.sqrt(), rtol=2e-3)
    signed = mean_magnitude(seen, [4], unsigned=False)
    assert torch.allclose(signed / 7, 2 * x.mean() / math.sqrt(7), rtol=2e-3)
    by_row = MeanMagnitude(axis=0)
    by_row(x)
    assert torch.allclose(by_row.range(Grid(4))[1], 2 * x.flatten(1).mean(1) * math.sqrt(7))


def learning(x: Tensor) -> Lsq:
    quantizer = Lsq(Grid(4), Dynamic(), None, True)
    assert torch.equal(quantizer(x), x)
    quantizer.learn()
    return quantizer


def test_what_learns_is_a_parameter_while_it_learns_and_a_buffer_before_and_after() -> None:
    x = randn(4, 8, seed=0)
    quantizer = Lsq(Grid(4), Dynamic(), None, True, Learning(0.5, 1e-4))
    assert "scale" in dict(quantizer.named_buffers()) and not list(quantizer.parameters())
    quantizer(x)
    quantizer.learn()
    (scale,) = quantizer.parameters()
    assert isinstance(scale, Learned) and (scale.lr_scale, scale.weight_decay) == (0.5, 1e-4)
    assert "scale" in quantizer.state_dict() and type(quantizer.state_dict()["scale"]) is Tensor
    assert not quantizer.grid.narrow and (quantizer.grid.quant_min, quantizer.grid.quant_max) == (-8, 7)
    copied = copy.deepcopy(quantizer)
    (own,) = copied.parameters()
    assert isinstance(own, Learned) and (own.lr_scale, own.weight_decay) == (0.5, 1e-4) and own is not scale
    assert learned_values(quantizer) == {"scale": scale.item()}
    rounded = quantizer(x)
    quantizer.freeze()
    assert not list(quantizer.parameters()) and torch.equal(quantizer(x), rounded)
    assert "scale" in quantizer.state_dict() and learned_values(quantizer) == {}


def test_an_input_that_was_never_negative_takes_the_unsigned_grid() -> None:
    assert learning(randn(4, 8, seed=0).relu()).grid == Grid(4, signed=False)


@pytest.mark.parametrize("value", [-0.13, 0.0, -1e-30])
def test_a_step_that_crossed_zero_rounds_as_its_magnitude_and_ends_positive(value: float) -> None:
    x = randn(4, 8, seed=0)
    quantizer = learning(x)
    quantizer.scale.data.fill_(value)
    rounded = quantizer(x)
    assert rounded.isfinite().all()
    rounded.sum().backward()
    assert quantizer.scale.grad is not None and quantizer.scale.grad.isfinite()
    quantizer.freeze()
    assert quantizer.scale > 0 and torch.equal(quantizer(x), rounded)


@pytest.mark.parametrize("start", [4.0, 0.25])
def test_a_step_learns_to_lose_less(start: float) -> None:
    """From far off it comes near the step size of least squared error."""
    x = randn(1024, seed=0)
    quantizer = learning(x)
    quantizer.scale.data.fill_(0.335 * start)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.05)
    errors = []
    for _ in range(150):
        error = (quantizer(x[None]) - x).square().mean() * 64  # undoes most of the gradient's scale
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item() / 64)
    scales = torch.linspace(0.3, 0.5, 201)
    best = min(float((lsq(x, scale, Grid(4), 1.0) - x).square().mean()) for scale in scales)
    assert best <= errors[-1] < 1.5 * best < errors[0]


def test_a_quantizer_of_its_own_says_how_it_rounds() -> None:
    quantizer = LearnedQuantizer(Grid(4), Dynamic())
    quantizer(torch.ones(3))
    quantizer.learn()
    with pytest.raises(NotImplementedError):
        quantizer(torch.ones(3))
