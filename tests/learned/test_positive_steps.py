"""Step sizes and clips that learn stay positive as they count, whatever an optimizer's step makes of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from fakes.tensors import randn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from suite.arithmetic.affine import Grid
from suite.learned.apot import ApotInput, ApotWeight
from suite.learned.ewgs import Ewgs, EwgsWeight, ewgs
from suite.learned.lsq import Lsq
from suite.learned.lsq_plus import LsqPlus
from suite.learned.pact import Pact
from suite.learned.quantizer import SMALLEST_STEP, LearnedQuantizer, learned_values
from suite.ranges.observers import Dynamic

X = randn(8, 32, seed=0)


def kinds() -> dict[str, LearnedQuantizer]:
    """Of each kind that has something that learns one quantizer."""
    grid: dict[str, Any] = {"grid": Grid(4), "observer": Dynamic()}
    return {
        "LSQ": Lsq(**grid),
        "LSQ per channel": Lsq(Grid(4), Dynamic(0), 0),
        "LSQ+": LsqPlus(Grid(4, signed=False), Dynamic()),
        "PACT": Pact(**grid, unsigned=True),
        "PACT of what may be negative": Pact(**grid),
        "EWGS weight": EwgsWeight(**grid),
        "EWGS input": Ewgs(**grid, unsigned=True),
        "APoT weight": ApotWeight(**grid),
        "APoT input": ApotInput(**grid, unsigned=True),
    }


def learning(name: str) -> LearnedQuantizer:
    quantizer = kinds()[name]
    quantizer(X.relu() if "input" in name or name == "PACT" else X)
    quantizer.learn()
    return quantizer


def found(quantizer: LearnedQuantizer) -> tuple[Tensor, dict[str, Tensor]]:
    """What X is rounded to, and the gradients: of X, which is named "x", and of what learns."""
    x = X.clone().requires_grad_()
    y = quantizer(x)
    (y * randn(8, 32, seed=1)).sum().backward()
    assert x.grad is not None
    return y.detach(), {"x": x.grad, **{name: p.grad for name, p in quantizer.named_parameters()}}  # type: ignore[dict-item]


VALUES = st.floats(-100, 100, width=32)
EACH = pytest.mark.parametrize("name", kinds())


@EACH
@given(value=VALUES, other=VALUES)
@example(value=0.0, other=0.0)
@example(value=-0.0, other=-1e-30)
@example(value=1e-30, other=0.5)
@example(value=-0.25, other=1.0)
@settings(max_examples=25, deadline=None)
def test_whatever_is_learned_rounds_to_finite_values_and_leaves_a_positive_step(
    name: str, value: float, other: float
) -> None:
    quantizer = learning(name)
    for number, parameter in enumerate(quantizer.parameters()):
        parameter.data.fill_(other if number % 2 else value)
    y, grads = found(quantizer)
    assert y.isfinite().all() and all(grad.isfinite().all() for grad in grads.values())
    counted = learned_values(quantizer)
    assert counted.keys() == dict(quantizer.named_parameters()).keys()
    positive = [each for each in quantizer.LEARNED if each not in quantizer.SIGNED]
    assert all(counted[each] >= SMALLEST_STEP for each in positive), "what is logged is what counts"
    quantizer.freeze()
    assert all((getattr(quantizer, each) >= SMALLEST_STEP).all() for each in positive)
    assert (quantizer.scale > 0).all() and torch.equal(quantizer(X), y)
    assert {each: float(getattr(quantizer, each).mean()) for each in counted} == counted


@EACH
def test_a_step_and_its_negative_are_mirror_images(name: str) -> None:
    """So that training goes on beyond zero as if it had been thrown back."""
    one = learning(name)
    other = copy.deepcopy(one)
    positive = [each for each in one.LEARNED if each not in one.SIGNED]
    for each in positive:
        other.get_parameter(each).data.neg_()
    (y, grads), (mirrored, theirs) = found(one), found(other)
    assert torch.equal(y, mirrored) and learned_values(one) == learned_values(other)
    for each, grad in grads.items():
        assert torch.equal(theirs[each], -grad if each in positive else grad), each


def test_a_range_of_ewgs_whose_ends_have_crossed_learns_on() -> None:
    """Its width counts by its magnitude. One of nearly 0 would have no value inside, and never a gradient."""
    x, low, high = X.clone().requires_grad_(), torch.tensor(0.1), torch.tensor(-0.7)
    low.requires_grad_(), high.requires_grad_()
    zero, one = torch.zeros(()), torch.ones(())
    y = ewgs(x, low, high, zero, one, 15, 0.0)
    assert torch.equal(y, ewgs(x, low, torch.tensor(0.1) + (high - low).abs(), zero, one, 15, 0.0))
    (y * randn(8, 32, seed=1)).sum().backward()
    inside = (x > low) & (x < low + 0.8)
    assert x.grad is not None and torch.equal(x.grad != 0, inside) and inside.sum() > 20
    assert low.grad and high.grad, "none of them is 0"
