"""The quantizer of NVIDIA's interface: its arithmetic, its settings, its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fakes.tensors import randn
from hypothesis import given
from hypothesis import strategies as st

from suite.arithmetic.affine import Grid, fake_quantize
from suite.pytorch_quantization import (
    HistogramCalibrator,
    MaxCalibrator,
    QuantConv1d,
    QuantDescriptor,
    QuantLinear,
    TensorQuantizer,
    fake_tensor_quant,
    tensor_quant,
)
from suite.recipe.errors import SuiteError

SEEDS = st.integers(0, 2**31)


@given(
    seed=SEEDS, bits=st.integers(2, 16), unsigned=st.booleans(), axis=st.sampled_from([None, 0, -1, (0, 2)])
)
def test_a_dynamic_range_equals_torchs_fake_quantize_with_one_amax_for_each_kept_dimension(
    seed: int, bits: int, unsigned: bool, axis: Any
) -> None:
    x = randn(3, 4, 5, seed=seed)
    x = x.abs() if unsigned else x
    quantizer = TensorQuantizer(QuantDescriptor(num_bits=bits, unsigned=unsigned, axis=axis))
    top = 2**bits - 1 if unsigned else 2 ** (bits - 1) - 1
    bottom = 0 if unsigned else -top
    kept = {None: [], 0: [0], -1: [2], (0, 2): [0, 2]}[axis]
    amax = x.abs().amax([dim for dim in range(3) if dim not in kept], keepdim=True)
    by_hand = torch.empty_like(x)
    for index in torch.cartesian_prod(*(torch.arange(size) for size in amax.shape)).tolist():
        part = tuple(index[dim] if dim in kept else slice(None) for dim in range(3))
        step = float(amax[tuple(index)] / top)
        by_hand[part] = torch.fake_quantize_per_tensor_affine(x[part], step, 0, bottom, top)
    assert torch.equal(quantizer(x), by_hand)


def test_the_numbers_of_nvidias_user_guide_come_out() -> None:
    torch.manual_seed(12345)
    x = torch.rand(10)
    printed = [0.9843, 0.8828, 0.9921, 0.4609, 0.0859, 0.1797, 0.3672, 0.5703, 0.3359, 0.2109]
    assert torch.allclose(fake_tensor_quant(x, x.abs().max()), torch.tensor(printed), atol=6e-5)
    integers, scale = tensor_quant.tensor_quant(x, x.abs().max())
    assert integers.tolist() == [126, 113, 127, 59, 11, 23, 47, 73, 43, 27]
    assert round(float(scale), 4) == 128.0057


@given(seed=SEEDS, bits=st.integers(2, 16), unsigned=st.booleans())
def test_integers_over_their_scale_are_the_fake_quantized_values(
    seed: int, bits: int, unsigned: bool
) -> None:
    x = randn(200, seed=seed)
    x = x.abs() if unsigned else x
    quantizer = TensorQuantizer(QuantDescriptor(num_bits=bits, unsigned=unsigned, fake_quant=False))
    integers = quantizer(x)
    assert torch.equal(integers, integers.round())
    assert integers.abs().max() == 2 ** (bits - (not unsigned)) - 1
    assert quantizer.scale is not None
    assert torch.allclose(integers / quantizer.scale, fake_tensor_quant(x, x.abs().max(), bits, unsigned))


def test_the_gradient_reaches_half_a_step_beyond_amax_where_nvidias_ends_at_it() -> None:
    """The two differ, but only under a fixed amax, and only for amax < |x| <= amax + step / 2."""
    amax, differing = torch.tensor(1.0), 0
    for x in (torch.linspace(-1.02, 1.02, 4081), randn(1000)):
        x.requires_grad_()
        fake_tensor_quant(x, amax).sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        nvidia = (x.abs() <= amax).float()
        beyond = (x.abs() > amax) & (x.abs() * 127 < 127.5)
        assert torch.equal(x.grad - nvidia, beyond.float())
        differing += int(beyond.sum())
        dynamic = x.detach().requires_grad_()
        TensorQuantizer()(dynamic).sum().backward()
        assert dynamic.grad is not None
        assert bool((dynamic.grad == 1).all())
    assert differing == 16


def test_the_lowest_integer_is_met_only_below_a_fixed_amax() -> None:
    """NVIDIA's descriptor has narrow_range=False; the values that this changes, and by how much."""
    narrow, full = (TensorQuantizer(QuantDescriptor(narrow_range=choice)) for choice in (True, False))
    x = torch.cat([randn(1000), torch.tensor([-3.9])])
    assert torch.equal(narrow(x), full(x))
    narrow.amax = full.amax = 2.0
    differs = narrow(x) != full(x)
    assert torch.equal(differs, x * 127 / 2 < -127.5)
    assert torch.allclose(narrow(x)[differs] - full(x)[differs], torch.tensor(2 / 127), atol=1e-6)
    assert differs.sum() > 10


def test_a_learned_amax_starts_at_the_calibrated_one_and_takes_the_gradient_of_what_it_clips() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(learn_amax=True, num_bits=4))
    x = torch.tensor([-3.0, -0.5, 0.25, 1.5, 2.0, 4.0], requires_grad=True)
    quantizer.enable_calib()
    quantizer(x / 2)
    quantizer.load_calib_amax()
    quantizer.disable_calib()
    quantizer.init_learn_amax()
    assert quantizer.clip.clip_value_max == 2
    quantizer(x).sum().backward()
    assert quantizer.clip.clip_value_max.grad == 2
    assert quantizer.clip.clip_value_min.grad == 1
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0, 0]
    quantizer.disable_quant()
    assert quantizer(x).tolist() == [-2, -0.5, 0.25, 1.5, 2, 2]
    quantizer.disable_clip()
    assert torch.equal(quantizer(x), x)
    assert not any(parameter.requires_grad for parameter in quantizer.parameters())


def test_a_quantizers_settings_can_be_read_set_and_seen() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=2.0, scale_amax=0.5))
    x = randn(50)
    assert torch.equal(quantizer(x), fake_tensor_quant(x, torch.tensor(1.0)))
    assert str(quantizer) == "TensorQuantizer(8bit per-tensor amax=2.0000 calibrator=MaxCalibrator quant)"
    quantizer.num_bits, quantizer.unsigned, quantizer.amax = 4, True, 3.0
    assert (quantizer._calibrator._num_bits, quantizer._calibrator._unsigned) == (4, True)
    assert (quantizer.axis, quantizer.fake_quant, quantizer.narrow_range) == (None, True, True)
    assert quantizer.step_size == 3 / 15
    assert torch.equal(quantizer(x.abs()), fake_tensor_quant(x.abs(), torch.tensor(1.5), 4, True))
    quantizer.disable()
    assert quantizer(x) is x
    assert "disabled" in str(quantizer)
    quantizer.enable()
    with pytest.raises(SuiteError, match="unsigned"):
        quantizer(x)


def test_descriptors_of_equal_fields_are_equal_however_their_amax_was_given() -> None:
    given = [[1.5, 2.0], (1.5, 2.0), torch.tensor([1.5, 2.0]), torch.tensor([1.5, 2.0]).numpy()]
    assert len({QuantDescriptor(amax=amax) for amax in given}) == 1
    assert QuantDescriptor() != QuantDescriptor(4)
    assert QuantDescriptor(5, unsigned=True).grid == Grid(5, signed=False)


def test_half_precision_is_kept_and_rounded_as_float32() -> None:
    x = randn(300).half()
    scale, zero_point = Grid(8, narrow=True).symmetric(x.abs().max())
    expected = fake_quantize(x.float(), scale, zero_point, -127, 127).half()
    assert torch.equal(TensorQuantizer()(x), expected)


NAN = torch.tensor([1.0, float("nan")])


def run_unsigned() -> None:
    TensorQuantizer(QuantDescriptor(unsigned=True))(torch.tensor([-1.0, 2.0]))


def changing_shape() -> None:
    calibrator = MaxCalibrator(axis=0)
    calibrator.collect(randn(3, 2))
    calibrator.collect(randn(4, 2))


def far_too_large() -> None:
    calibrator = HistogramCalibrator()
    calibrator.collect(torch.tensor([1e-6]))
    calibrator.collect(torch.tensor([1.0]))


def computed(method: str, **arguments: Any) -> None:
    calibrator = HistogramCalibrator(num_bins=100)
    calibrator.collect(torch.ones(3))
    calibrator.compute_amax(method, **arguments)


def other_shape() -> None:
    TensorQuantizer(QuantDescriptor(amax=1.0)).amax = [1.0, 2.0]


def loaded_over_another_shape() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=[1.0, 2.0]), if_calib=True)
    quantizer(randn(3, 2))
    quantizer.load_calib_amax()


def unseen_but_not_strict() -> None:
    quantizer = TensorQuantizer()
    quantizer.load_calib_amax(strict=False)
    quantizer(randn(3))


ERRORS: list[tuple[str, Callable[[], object]]] = [
    ("num_bits 1 is out of range", lambda: QuantDescriptor(1)),
    (r"num_bits \(4, 3\) is out of range", lambda: QuantDescriptor((4, 3))),  # type: ignore[arg-type]
    ("num_bits 17 is out of range", lambda: MaxCalibrator(17)),
    ("calib_method 'mse' is unknown", lambda: QuantDescriptor(calib_method="mse")),
    ("axis '0' is no dimension", lambda: QuantDescriptor(axis="0")),  # type: ignore[arg-type]
    ("is per tensor, got axis 0", lambda: QuantDescriptor(axis=0, calib_method="histogram")),
    ("is per tensor, got axis 0", lambda: HistogramCalibrator(axis=0)),
    ("num_bins 1 is out of range", lambda: HistogramCalibrator(num_bins=1)),
    ("scale_amax must be above 0", lambda: QuantDescriptor(scale_amax=0.0)),
    ("amax must be finite and at least 0, got -1.0", lambda: QuantDescriptor(amax=-1.0)),
    ("learns one amax", lambda: QuantDescriptor(learn_amax=True, axis=0)),
    (r"axis 4 is out of range .* use -2 to 1", lambda: TensorQuantizer(QuantDescriptor(axis=4))(randn(2, 2))),
    ("does not broadcast", lambda: fake_tensor_quant(randn(3, 2), torch.ones(3))),
    ("unsigned quantization met -1", run_unsigned),
    ("at least 0, got nan", lambda: TensorQuantizer()(NAN)),
    ("inf or NaN", lambda: MaxCalibrator().collect(NAN)),
    ("inf or NaN", lambda: HistogramCalibrator().collect(NAN)),
    (
        "float16 does not hold all integers up to 32767",
        lambda: tensor_quant.tensor_quant(NAN.half(), NAN[0], 16),
    ),
    (
        "bfloat16 does not hold all integers up to 511",
        lambda: tensor_quant.tensor_quant(NAN.bfloat16(), NAN[0], 10),
    ),
    ("empty tensor", lambda: TensorQuantizer()(torch.zeros(0))),
    ("empty tensor", lambda: TensorQuantizer(QuantDescriptor(axis=0))(torch.zeros(0, 2))),
    ("the calibrator saw no tensor", lambda: TensorQuantizer().load_calib_amax()),
    ("at least 0, got nan", unseen_but_not_strict),
    ("one before it", loaded_over_another_shape),
    ("shape changed", changing_shape),
    ("calibrate on a batch first that is typical", far_too_large),
    ("a max calibrator has no method 'entropy'", lambda: TensorQuantizer().load_calib_amax("entropy")),
    ("method 'max' is unknown", lambda: computed("max")),
    ("percentile 101 is out of range", lambda: computed("percentile", percentile=101)),
    ("leaves none of 100 bins", lambda: computed("entropy")),
    ("leaves none of 100 bins", lambda: computed("mse", start_bin=1, stride=0)),
    ("cannot become one of shape", other_shape),
    ("no learned amax to clip at", lambda: TensorQuantizer(if_clip=True)),
    ("no learned amax to start", lambda: TensorQuantizer().init_learn_amax()),
    ("calibrate first", lambda: TensorQuantizer(QuantDescriptor(learn_amax=True)).init_learn_amax()),
    ("use fake_quant=True", lambda: QuantLinear(2, 2, quant_desc_input=QuantDescriptor(fake_quant=False))),
    ("is no QuantDescriptor", lambda: QuantConv1d.set_default_quant_desc_input(8)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("message", "wrong"), ERRORS)
def test_each_error_says_what_is_wrong(message: str, wrong: Callable[[], object]) -> None:
    with pytest.raises(SuiteError, match=message):
        wrong()


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 12), (torch.bfloat16, 9), (torch.float32, 16)])
def test_integers_of_half_tensors_are_exact_up_to_the_width_that_half_can_tell(
    dtype: torch.dtype, bits: int
) -> None:
    x = randn(500).to(dtype)
    integers, scale = tensor_quant.tensor_quant(x, x.abs().max(), bits)
    wide, _ = tensor_quant.tensor_quant(x.float(), x.abs().max(), bits)
    assert integers.dtype == dtype and torch.equal(integers.float(), wide)
    assert wide.abs().max() == 2 ** (bits - 1) - 1 and scale.dtype == torch.float32


@pytest.mark.parametrize("given", ["a", 8, None])
def test_what_is_no_descriptor_is_refused_as_such(given: Any) -> None:
    with pytest.raises(SuiteError, match="quant_desc must be a QuantDescriptor, got"):
        TensorQuantizer(given)
