"""APoT's levels, its rounding and its clip are the authors'."""

from __future__ import annotations

import pytest
import torch
from fakes.tensors import SEEDS, gradients, randn
from hypothesis import given
from hypothesis import strategies as st

from suite.arithmetic.affine import Grid
from suite.learned.apot import ApotInput, ApotWeight, apot, levels
from suite.learned.quantizer import Learning
from suite.ranges.observers import Dynamic

BITS = st.integers(2, 8)


HOW = Learning()


def test_apots_levels_are_the_authors() -> None:
    """`build_power_value` of the authors' quant_layer.py, by hand."""
    two = {0, 1 / 2, 1 / 4, 1 / 8}
    three = {a + b for a in (0, 1 / 2, 1 / 4, 1 / 16) for b in (0, 1 / 8)}
    four = {a + b for a in (0, 2**-1, 2**-3, 2**-5) for b in (0, 2**-2, 2**-4, 2**-6)}
    six = {
        a + b + c
        for a in (0, 2**-1, 2**-4, 2**-7)
        for b in (0, 2**-2, 2**-5, 2**-8)
        for c in (0, 2**-3, 2**-6, 2**-9)
    }
    for bits, sums in {2: two, 3: three, 4: four, 6: six}.items():
        assert levels(bits) == pytest.approx([one / max(sums) for one in sorted(sums)]), bits
    assert levels(1) == (0, 1), "a weight of 2 bits is ternary"
    for bits in range(2, 8):
        assert len(set(levels(bits))) == 2**bits and levels(bits)[0] == 0 and levels(bits)[-1] == 1


@given(SEEDS, st.integers(1, 6), st.booleans())
def test_apot_takes_the_nearest_level_and_alpha_learns_as_the_authors_have_it(
    seed: int, bits: int, clips: bool
) -> None:
    x, grad = randn(4, 64, seed=seed).requires_grad_(), randn(4, 64, seed=seed + 1)
    alpha = torch.tensor(1.3, requires_grad=True)
    y = apot(x, alpha, bits, clips)
    table = torch.tensor(levels(bits))
    v = x / alpha
    distance = (v.clamp(-1, 1).abs()[..., None] - table).abs()
    q = v.sign() * table[distance.argmin(-1)]
    nearest, second = distance.sort(-1).values[..., :2].unbind(-1)
    sure = second - nearest > 1e-5
    assert torch.allclose(y[sure], (q * alpha)[sure])
    of_x, of_alpha = gradients(y, [x, alpha], grad)
    outside = v.abs() > 1
    assert torch.equal(of_x, grad * ~outside if clips else grad)
    rounded = y / alpha
    expected = (grad * torch.where(outside, v.sign(), rounded - v)).sum()
    assert torch.allclose(of_alpha, expected, atol=1e-4)


def test_apot_keeps_nan_and_clips_what_is_infinite() -> None:
    y = apot(torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0]), torch.tensor(2.0), 4, True)
    assert y[0].isnan() and y[1:].tolist() == [2, -2, 0]


def test_an_apot_weight_is_normalized_and_at_eight_bits_evenly_spaced() -> None:
    w = randn(16, 16, seed=0) * 0.01 + 0.002
    weight = ApotWeight(Grid(4), Dynamic())
    weight(w)
    weight.learn()
    assert weight.alpha == 3 and isinstance(weight.alpha, torch.nn.Parameter)
    assert torch.allclose(weight(w), weight(w * 50 + 7), atol=1e-5), (
        "mean and standard deviation do not matter"
    )
    assert len(weight(w).unique()) == 15
    wide = ApotWeight(Grid(8), Dynamic())
    wide(w)
    wide.learn()
    assert not list(wide.parameters())
    steps = wide(w) / (w.abs().max() / 127)
    assert torch.allclose(steps, steps.round(), atol=1e-3) and steps.abs().max().round() == 127


def test_an_apot_input_clips_at_eight_at_first_and_has_the_levels_of_all_its_bits() -> None:
    x = randn(64, 64, seed=0).relu() * 4
    inputs = ApotInput(Grid(4), Dynamic(), unsigned=True)
    inputs(x)
    inputs.learn()
    assert inputs.alpha == 8 and inputs(x).max() == 8 and len(inputs(x).unique()) == 16
    inputs.freeze()
    assert inputs.grid.limits(inputs.scale, inputs.zero_point)[1] == 8
