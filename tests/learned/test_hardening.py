"""PARQ and BinaryRelax: levels, the way to them and gradients in closed form.

With torchao 0.18.0's prototype.parq levels, maps and slopes agreed within 3e-7 (2, 3 and 4 bits, 60 tensors).
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from fakes.learned import learning
from fakes.networks import lived_in
from fakes.tensors import SEEDS, randn
from hypothesis import given
from hypothesis import strategies as st

from suite.learned import hardening
from suite.learned.hardening import binary_levels, inverse_slope, nearest, parq
from suite.methods.binary_relax import BinaryRelax
from suite.methods.parq import Parq
from suite.quantizers.layers import Quantized, bake
from suite.recipe.errors import SuiteError

BITS = st.integers(2, 5)


@given(SEEDS, BITS)
def test_levels_are_all_signed_sums_of_the_mean_magnitudes_of_what_is_left(seed: int, bits: int) -> None:
    w = randn(200, seed=seed)
    left, values = w.double(), []
    for _ in range(bits):
        values.append(float(left.abs().mean()))
        left = left - torch.where(left < 0, -values[-1], values[-1])
    sums = sorted(
        sum(sign * v for sign, v in zip(signs, values, strict=True))
        for signs in itertools.product((-1, 1), repeat=bits)
    )
    assert binary_levels(w, bits).tolist() == pytest.approx(sums, abs=1e-5)


@given(SEEDS, BITS)
def test_a_slope_of_one_changes_nothing_between_the_levels_and_an_infinite_one_rounds(
    seed: int, bits: int
) -> None:
    w = randn(200, seed=seed)
    levels = binary_levels(w, bits)
    inside = w.clamp(levels[0], levels[-1])
    assert torch.allclose(parq(w, levels, torch.tensor(1.0)), inside, atol=1e-6)
    rounded = parq(w, levels, torch.tensor(0.0))
    assert torch.equal(rounded, nearest(w, levels))
    assert torch.equal((w - rounded).abs(), (w[:, None] - levels).abs().amin(1))


@given(SEEDS, BITS, st.floats(0.01, 1))
def test_parq_keeps_the_order_and_moves_every_weight_towards_its_nearest_level(
    seed: int, bits: int, inverse: float
) -> None:
    w = randn(200, seed=seed).sort().values
    levels = binary_levels(w, bits)
    moved, to = parq(w, levels, torch.tensor(inverse)), nearest(w, levels)
    assert (moved.diff() >= -1e-6).all()
    assert ((moved - to).abs() <= (w - to).abs() + 1e-6).all()


def test_the_slope_grows_by_a_sigmoid_from_one_to_infinity() -> None:
    parts = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    low, high = 1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))
    expected = [(1 / (1 + math.exp(10 * (part - 0.5))) - low) / (high - low) for part in parts.tolist()]
    assert inverse_slope(parts, 10.0).tolist() == pytest.approx(expected, abs=1e-6)
    assert inverse_slope(parts, 100.0).tolist() == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-6)


@pytest.mark.parametrize("method", [Parq(2), BinaryRelax(3), Parq(4, 4)])
def test_weights_are_float_when_training_begins_and_on_their_levels_where_it_is_to_end(
    method: Parq | BinaryRelax,
) -> None:
    model = learning(method, lived_in())
    held = model.get_submodule("layer1.0.conv1")
    assert isinstance(held, Quantized) and isinstance(held.weight, hardening.Hardening)
    weight, quantizer = held.layer.weight, held.weight
    levels = binary_levels(weight, method.weight_bits)
    inside = (weight > levels[0]) & (weight < levels[-1])
    assert torch.allclose(quantizer(weight)[inside], weight[inside], atol=1e-6)
    assert len(hardening.hardening(model)) == 22
    for progress in hardening.hardening(model):
        progress.fill_(method.until)
    assert torch.equal(quantizer(weight), nearest(weight.detach(), levels))
    (gradient,) = torch.autograd.grad(quantizer(weight).sum(), weight)
    assert torch.equal(gradient, torch.ones_like(weight)), "passed unchanged"
    for progress in hardening.hardening(model):
        progress.fill_(0.0)
    baked = bake(model).get_submodule("layer1.0.conv1")
    assert isinstance(baked, Quantized)
    assert torch.equal(baked.layer.weight, nearest(weight.detach(), levels)), (
        "rounded for good, whatever is left"
    )


@pytest.mark.parametrize("until", [0, 1.5])
def test_a_part_of_the_training_that_is_none_is_refused(until: float) -> None:
    with pytest.raises(
        SuiteError, match=f"until must be above 0 and at most 1, the whole training; got {until}"
    ):
        _ = Parq(until=until).weights
