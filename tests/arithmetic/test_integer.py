"""Arithmetic in integers alone: against exact fractions, two's complement, and ONNX Runtime's own sums."""

from __future__ import annotations

import ctypes
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from fakes.missing import missing
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from suite.arithmetic import integer
from suite.arithmetic.integer import Accumulators, Multiplier
from suite.recipe.errors import SuiteError

factors = st.floats(2.0**-30, 2.0**20) | st.floats(-(2.0**10), -(2.0**-20))
sums = st.integers(-(2**31), 2**31 - 1)


@given(factors, st.lists(sums, min_size=1, max_size=20))
def test_a_multiplier_is_its_fraction_rounded_half_up(factor: float, values: list[int]) -> None:
    made = Multiplier.of(torch.tensor(factor, dtype=torch.float64))
    fraction = Fraction(int(made.mantissa), 2 ** int(made.shift))
    assert abs(fraction - Fraction(factor)) <= abs(Fraction(factor)) / 2**31
    expected = [math.floor(value * fraction + Fraction(1, 2)) for value in values]
    assert made(torch.tensor(values)[None]).tolist() == [expected]


@given(st.floats(2.0**-30, 1.0), sums, st.integers(0, 255))
def test_requantized_sums_are_the_exact_quotient_but_near_a_tie(ratio: float, value: int, zero: int) -> None:
    one = torch.tensor(1.0, dtype=torch.float64)
    found = int(integer.requantized(torch.tensor([[value]]), one * ratio, one, zero, 0, 255))
    exact = Fraction(ratio) * value + zero
    nearest = min(255, max(0, math.floor(exact + Fraction(1, 2))))
    from_tie = abs(exact - math.floor(exact) - Fraction(1, 2))
    assert found == nearest or (
        abs(found - nearest) == 1 and from_tie <= abs(exact) / 2**30 + Fraction(1, 2**20)
    )


def test_a_factor_that_no_multiplier_holds_is_refused_and_a_tiny_one_is_zero() -> None:
    for factor in (2.0**30, math.inf, math.nan):
        with pytest.raises(SuiteError, match="must be below 2\\^30"):
            Multiplier.of(torch.tensor(factor))
    assert Multiplier.of(torch.tensor(2.0**-90, dtype=torch.float64))(
        torch.tensor([[2**31 - 1]])
    ).tolist() == [[0]]


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30))
def test_sums_wrap_as_twos_complement_does_and_are_counted(values: list[int]) -> None:
    for bits, held in ((16, ctypes.c_int16), (32, ctypes.c_int32)):
        accumulators = Accumulators(bits)
        assert accumulators(torch.tensor(values), "conv").tolist() == [held(value).value for value in values]
        beyond = sum(held(value).value != value for value in values)
        assert accumulators.overflows["conv"] == beyond and accumulators.values["conv"] == len(values)
        assert accumulators.largest["conv"] == max(map(abs, values))


def test_a_16_bit_accumulator_overflows_at_its_limit_and_not_below() -> None:
    accumulators = Accumulators(16)
    accumulators(torch.tensor([32767, -32768]), "fits")
    accumulators(torch.tensor([32768, -32769]), "leaves")
    assert accumulators.overflows == {"leaves": 2}


@given(
    st.floats(0.001, 10), st.floats(0.001, 10), st.integers(2, 16), st.sampled_from([16, 24, 32]), st.data()
)
def test_a_rescaled_sum_is_the_real_sum_at_every_width_and_fits_its_accumulator(
    one: float, other: float, bits: int, held: int, data: st.DataObject
) -> None:
    most = 2**bits - 1
    a, b = (data.draw(st.sampled_from([-most, most]) | st.integers(-most, most)) for _ in range(2))
    scales = [torch.tensor(scale, dtype=torch.float64) for scale in (one, other)]
    operands = torch.tensor([[a]]), scales[0], torch.tensor([[b]]), scales[1]
    total, unit = integer.rescaled_sum(*operands, bits, held)
    assert abs(float(total * unit) - (a * one + b * other)) <= 2 * float(unit)
    if bits <= held - 2:
        accumulators = Accumulators(held)
        accumulators(total, "add")
        assert not accumulators.overflows


def test_a_bias_beyond_int32_names_its_layer() -> None:
    with pytest.raises(SuiteError, match="a bias of layer conv1 is 1e\\+20"):
        integer.integer_bias(torch.tensor([1e20]), torch.tensor(0.1), "conv1")


@pytest.mark.parametrize(("weight", "clips"), [(64, False), (65, True), (127, True)])
def test_weights_of_7_bits_fit_pairs_of_products_into_16_bits(weight: int, clips: bool) -> None:
    assert integer.may_clip_pairs(torch.tensor([[weight, -3]]), 255) == clips
    assert 2 * weight * 255 > 32767 if clips else 2 * weight * 255 <= 32767


def onnx_run(
    op: str, inputs: dict[str, np.ndarray[Any, Any]], kind: int, **attributes: Any
) -> np.ndarray[Any, Any]:
    """One operator of ONNX Runtime."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError:
        missing("onnx and onnxruntime are not installed")
    types = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.float32): TensorProto.FLOAT}
    types |= {np.dtype(np.int32): TensorProto.INT32}
    given = [helper.make_tensor_value_info(name, types[x.dtype], x.shape) for name, x in inputs.items()]
    node = helper.make_node(op, list(inputs), ["y"], **attributes)
    graph = helper.make_graph([node], "one", given, [helper.make_tensor_value_info("y", kind, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(None, inputs)[0]
    return found


def operands() -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 with zero point 3, and weights uint8 with zero point 128: exact on every processor."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2, 5, 6, 6), generator=generator)
    return x, torch.randint(0, 256, (4, 5, 3, 3), generator=generator)


@given(st.integers(1, 50), st.sampled_from([16, 20, 32]), st.integers(0, 2**31))
def test_sums_of_products_overflow_just_where_exact_ones_leave_the_accumulator(
    terms: int, bits: int, seed: int
) -> None:
    """Of int8 weights and uint8 inputs, summed in any order: two's complement gives the same in the end."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (3, terms), generator=generator)
    w = torch.randint(-128, 128, (2, terms), generator=generator)
    exact = [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in w.tolist()] for row in x.tolist()
    ]
    accumulators, half = Accumulators(bits), 2 ** (bits - 1)
    found = accumulators(F.linear(x.double(), w.double()).long(), "linear")
    leaves = [[not -half <= total < half for total in row] for row in exact]
    assert found.tolist() == [[(total + half) % (2 * half) - half for total in row] for row in exact]
    assert accumulators.overflows["linear"] == sum(map(sum, leaves))
    step_by_step = torch.zeros(3, 2, dtype=torch.int64)
    for term in range(terms):
        step_by_step = Accumulators(bits)(step_by_step + x[:, term, None] * w[None, :, term], "one")
    assert torch.equal(found, step_by_step)


def test_sums_of_products_are_those_of_onnx_runtimes_integer_convolution() -> None:
    x, w = operands()
    inputs = {"x": x, "w": w, "xz": torch.tensor(3), "wz": torch.tensor(128)}
    arrays = {name: value.numpy().astype(np.uint8) for name, value in inputs.items()}
    theirs = onnx_run("ConvInteger", arrays, 6, kernel_shape=[3, 3])
    ours = F.conv2d((x - 3).double(), (w - 128).double()).long()
    assert torch.equal(ours, torch.from_numpy(theirs).long())


def test_requantized_sums_are_those_of_onnx_runtimes_convolution_but_at_ties() -> None:
    """It multiplies by a float32 factor and rounds half to even; ours is an integer one and rounds half up."""
    x, w = operands()
    scales = {"xs": 0.02, "ws": 0.003, "ys": 0.08}
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    for name, value, zero in (("x", x, 3), ("w", w, 128)):
        inputs |= {name: value.numpy().astype(np.uint8), f"{name}s": np.array(scales[f"{name}s"], np.float32)}
        inputs[f"{name}z"] = np.array(zero, np.uint8)
    inputs |= {"ys": np.array(scales["ys"], np.float32), "yz": np.array(128, np.uint8)}
    bias = torch.tensor([100, -2000, 0, 5])
    inputs = {name: inputs[name] for name in ("x", "xs", "xz", "w", "ws", "wz", "ys", "yz")}
    inputs["b"] = bias.numpy().astype(np.int32)
    theirs = torch.from_numpy(onnx_run("QLinearConv", inputs, 2, kernel_shape=[3, 3]).astype(np.int64))
    total = F.conv2d((x - 3).double(), (w - 128).double()).long() + bias.reshape(1, -1, 1, 1)
    unit = torch.tensor(scales["xs"], dtype=torch.float32) * torch.tensor(scales["ws"], dtype=torch.float32)
    ours = integer.requantized(total, unit, torch.tensor(scales["ys"]), 128, 0, 255)
    apart = (ours - theirs).abs()
    exact = total.double() * float(unit) / float(torch.tensor(scales["ys"]))
    from_tie = (exact - exact.floor() - 0.5).abs()
    assert int(apart.max()) <= 1 and bool((from_tie[apart > 0] < 1e-4).all())
    assert len(theirs.unique()) > 20
