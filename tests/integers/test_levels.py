"""The integers of weights and inputs are found in what the arithmetic gives, or the reason why there are none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from suite.arithmetic.affine import Grid, fake_quantize
from suite.formats.onnx_graph import QuantizeInput, stored
from suite.integers.levels import NoGridError, integers_of, levels_of
from suite.learned.apot import ApotInput, ApotWeight
from suite.learned.lsq_plus import LsqPlus
from suite.learned.pact import Pact, dorefa_weight
from suite.quantizers.layers import note_scale, set_weight
from suite.quantizers.quantizer import Quantizer
from suite.ranges.observers import MinMax


def held(weight: torch.Tensor, bits: int) -> nn.Module:
    layer = nn.Linear(weight.shape[1], len(weight), bias=False)
    set_weight(layer, weight, bits)
    return layer


@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
def test_the_steps_of_a_weight_are_found_in_its_values(seed: int, bits: int, per_channel: bool) -> None:
    """Every value is again its integer times the step, bit by bit, where no step was noted: as in trained weights."""
    generator = torch.Generator().manual_seed(seed)
    half = 2 ** (bits - 1)
    q = torch.randint(-half, half, (3, 100), generator=generator).float()
    scale = torch.rand(3 if per_channel else 1, generator=generator) * 0.1 + 1e-4
    weight = q * scale[:, None]
    found = integers_of(held(weight, bits))
    assert found is not None and torch.equal(found.value, weight)
    assert int(found.q.max() - found.q.min()) < 2**bits and found.bits == bits


def test_a_noted_step_is_taken_where_it_gives_the_weight_and_a_stale_one_is_not() -> None:
    weight = torch.tensor([[2.0, 4.0, -6.0]])
    for noted, expected in ((1.0, 1.0), (0.3, 2.0)):
        layer = held(weight, 8)
        note_scale(layer, torch.tensor(noted))
        found = integers_of(layer)
        assert found is not None and float(found.scale) == expected and torch.equal(found.value, weight)


def test_a_channel_of_zeros_and_a_float_layer_are_no_fault() -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0], [0.25, -0.5, 0.75]])
    found = integers_of(held(weight, 4))
    assert found is not None and torch.equal(found.value, weight)
    assert integers_of(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_levels_without_zero_take_twice_as_many_steps(bits: int) -> None:
    """DoReFa's levels are odd multiples of half its step."""
    torch.manual_seed(0)
    weight = dorefa_weight(torch.randn(4, 60), 2**bits - 1)
    found = integers_of(held(weight, bits))
    assert found is not None and bool((found.q % 2 == 1).all())
    assert torch.allclose(found.value, weight, rtol=0, atol=2.0**-22)


def test_powers_of_two_and_other_uneven_weights_are_no_grid() -> None:
    torch.manual_seed(0)
    quantizer = ApotWeight(Grid(4), MinMax())
    weight = torch.randn(4, 200)
    quantizer(weight)
    with pytest.raises(NoGridError, match="no step was found.*16 at most"):
        integers_of(held(quantizer.settled(weight), 4))
    with pytest.raises(NoGridError):
        integers_of(held(torch.randn(4, 200), 4))


@given(
    st.integers(2, 16),
    st.sampled_from(["narrow", "signed", "affine"]),
    st.floats(-8, 0),
    st.floats(0.001, 8),
    st.booleans(),
)
def test_the_levels_of_a_quantizer_are_those_it_rounds_to(
    bits: int, grid: str, low: float, high: float, unsigned: bool
) -> None:
    made = Quantizer(
        Grid(bits, signed=grid != "affine", narrow=grid == "narrow"),
        MinMax(),
        "observe",
        symmetric=grid != "affine",
        unsigned=unsigned,
    )
    made(torch.tensor([low, high]))
    made.freeze()
    found = levels_of(made)
    x = torch.linspace(2 * low - 1, 2 * high + 1, 501)
    zero = torch.tensor(float(found.zero_point))
    assert torch.equal(made(x), fake_quantize(x, found.scale, zero, found.quant_min, found.quant_max))
    given = QuantizeInput(found)
    assert (given.low is None) == (int(given.zero_point) + found.quant_min - found.zero_point == 0)


def test_an_input_without_a_grid_says_why() -> None:
    x = torch.linspace(0, 3, 400)
    offset = LsqPlus(Grid(4, signed=False), MinMax())
    offset(x - 0.123)
    offset.learn()
    with torch.no_grad():
        offset.offset += 0.01
    offset.freeze()
    powers = ApotInput(Grid(4), MinMax(), unsigned=True)
    powers(x)
    powers.freeze()
    per_batch = Quantizer(Grid(8), MinMax(), "dynamic")
    per_batch(x)
    for quantizer, reason in (
        (offset, "no whole number"),
        (powers, "not 16 even ones"),
        (per_batch, "follows each batch"),
    ):
        with pytest.raises(NoGridError, match=reason):
            levels_of(quantizer)


def test_pacts_ends_are_found_though_its_grid_says_one_more() -> None:
    for low in (-1.0, 0.0):
        made = Pact(Grid(4), MinMax(), unsigned=True)
        made(torch.tensor([low, 1.0]))
        made.learn()
        made.freeze()
        assert levels_of(made).quant_min == (-7 if low else 0)


@given(st.integers(0, 2**31), st.integers(-300, 300), st.booleans())
def test_stored_integers_and_zero_points_give_the_same_differences(
    seed: int, offset: int, unsigned: bool
) -> None:
    """A grid with a zero point leaves int8, so its zero point is stored; what spans more is int16."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(-127, 128, (3, 20), generator=generator) + torch.tensor([[0], [0], [offset]])
    layer = held(q.float(), 10)
    note_scale(layer, torch.ones(3))
    weight = integers_of(layer)
    assert weight is not None
    values, zero = stored(weight, unsigned)
    assert torch.equal(values.to(torch.int32) - zero.to(torch.int32)[:, None], q.to(torch.int32))
    holds_zero = (q.amin(1) <= 0) & (q.amax(1) >= 0) & (q.amax(1) - q.amin(1) < 256)
    if bool(holds_zero.all()):
        assert values.dtype == (torch.uint8 if unsigned else torch.int8)
    if offset == 0:
        assert zero.tolist() == [128 * unsigned] * 3
