"""Arithmetic in blocks is that on the whole tensor, and a layer keeps no rounded input for its backward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from suite.arithmetic import cache_blocks
from suite.arithmetic.affine import Grid
from suite.learned.apot import ApotInput
from suite.learned.ewgs import Ewgs
from suite.learned.lsq import Lsq
from suite.learned.lsq_plus import LsqPlus
from suite.learned.pact import Pact
from suite.learned.quantizer import LearnedQuantizer
from suite.quantizers.layers import Quantized
from suite.ranges.observers import Dynamic

INPUTS = pytest.mark.parametrize("kind", [Lsq, LsqPlus, Pact, Ewgs, ApotInput])


def images(seed: int) -> Tensor:
    """4 images, more values than a block of this test and no multiple of it, as convolutions leave them."""
    x = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def layer(kind: type[LearnedQuantizer]) -> Quantized:
    """A convolution whose input is rounded to 3 bits."""
    torch.manual_seed(0)
    input = kind(Grid(3, signed=kind is not LsqPlus), Dynamic(None), unsigned=kind is not LsqPlus)
    held = Quantized(nn.Conv2d(3, 4, 3, padding=1), input, None)
    held(images(0).relu())
    input.learn()
    return held.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@INPUTS
def test_blocks_change_no_value_and_sums_by_their_order_alone(
    kind: type[LearnedQuantizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, x, g = layer(kind), images(0).relu(), torch.randn(4, 4, 7, 7)
    found = []
    for size in (1 << 20, 100):
        monkeypatch.setattr(cache_blocks, "CACHE_BLOCK", size)
        own, mine = copy.deepcopy(held), x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = own(mine)
        y.backward(g)
        found.append((y, mine.grad, [p.grad for p in own.parameters()]))
    (y, by_x, by_p), (same_y, same_by_x, same_by_p) = found
    assert torch.equal(y, same_y) and torch.equal(by_x, same_by_x)
    assert len(by_p) > 2 and all(
        torch.allclose(a, b, rtol=1e-5) for a, b in zip(by_p, same_by_p, strict=True)
    )


def test_a_tensor_that_is_not_dense_and_one_whose_gradient_is_asked_for_are_taken_whole() -> None:
    calls: list[torch.Size] = []

    def doubled(x: Tensor) -> Tensor:
        calls.append(x.shape)
        return x * 2

    whole = torch.arange(cache_blocks.CACHE_BLOCK * 4.0).reshape(2, -1)
    with torch.no_grad():
        cache_blocks.in_cache_blocks(doubled, whole[:, ::2])
        assert torch.equal(cache_blocks.in_cache_blocks(doubled, whole), whole * 2)
    cache_blocks.in_cache_blocks(doubled, whole)
    assert calls == [(2, cache_blocks.CACHE_BLOCK), *[(cache_blocks.CACHE_BLOCK,)] * 4, whole.shape]


@INPUTS
def test_a_layer_rounds_its_input_again_instead_of_keeping_it(
    kind: type[LearnedQuantizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, x, g = layer(kind), images(0).relu(), torch.randn(4, 4, 7, 7)
    gradients = []
    for again in (True, False):
        own = copy.deepcopy(held)
        if not again:
            monkeypatch.setattr(LearnedQuantizer, "repeats", False)
        y = own(x)
        assert (y.grad_fn._raw_saved_input.data is None) == again
        y.backward(g)
        gradients.append([parameter.grad for parameter in own.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
