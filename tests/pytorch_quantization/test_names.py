"""Code written for NVIDIA's package: names that it imports, fields that it sets, arguments that it passes."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from fakes.tensors import randn
from torch import nn

from suite.pytorch_quantization import (
    HistogramCalibrator,
    MaxCalibrator,
    QuantConv2d,
    QuantDescriptor,
    QuantLinear,
    TensorQuantizer,
    fake_tensor_quant,
)
from suite.pytorch_quantization import nn as quant_nn
from suite.pytorch_quantization.nn.modules import _utils
from suite.recipe.errors import SuiteError

X = torch.linspace(-1, 1, 401)

FIELDS: list[tuple[str, Any, dict[str, Any]]] = [
    ("_num_bits", 4, {"num_bits": 4}),
    ("_scale_amax", 0.5, {"scale_amax": 0.5}),
    ("_fake_quant", False, {"fake_quant": False}),
    ("_narrow_range", False, {"narrow_range": False}),
    ("_axis", 0, {"axis": 0}),
]


@pytest.mark.parametrize(("field", "value", "described"), FIELDS)
@pytest.mark.parametrize("fixed", [None, 0.25])
def test_a_private_field_that_is_set_counts_as_if_it_was_described(
    field: str, value: Any, described: dict[str, Any], fixed: float | None
) -> None:
    quantizer = TensorQuantizer(QuantDescriptor(amax=fixed))
    before = quantizer(X)
    setattr(quantizer, field, value)
    assert getattr(quantizer, field) == value
    expected = TensorQuantizer(QuantDescriptor(amax=fixed, **described))(X)
    assert torch.equal(quantizer(X), expected)
    # A fixed amax is used whatever the axis; the lowest integer is met below a fixed amax alone.
    seldom = {"_axis": fixed is not None, "_narrow_range": fixed is None}
    assert torch.equal(before, expected) == seldom.get(field, False)


def test_the_switches_count_and_unsigned_refuses_negative_values() -> None:
    quantizer = TensorQuantizer()
    quantizer._disabled = True
    assert quantizer(X) is X
    quantizer._disabled, quantizer._if_quant = False, False
    assert torch.equal(quantizer(X), X)
    quantizer._if_quant, quantizer._unsigned = True, True
    assert torch.equal(quantizer(X.abs()), TensorQuantizer(QuantDescriptor(unsigned=True))(X.abs()))
    with pytest.raises(SuiteError, match="unsigned quantization met -1"):
        quantizer(X)


def test_an_amax_that_is_set_as_a_field_fixes_the_range_and_one_that_is_deleted_frees_it() -> None:
    for value in (0.5, torch.tensor(0.5), np.float32(0.5)):
        quantizer = TensorQuantizer()
        quantizer._amax = value  # type: ignore[assignment]
        assert torch.equal(quantizer(X), fake_tensor_quant(X, torch.tensor(0.5)))
        assert quantizer.state_dict().keys() == {"_amax"}
        del quantizer._amax
        assert quantizer.amax is None
        assert torch.equal(quantizer(X), TensorQuantizer()(X))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("_num_bits", 99, "num_bits 99 is out of range"),
        ("_axis", "0", "axis '0' is no dimension"),
        ("_scale_amax", "half", "scale_amax must be above 0"),
        ("_learn_amax", True, "describe the tensor with learn_amax=True"),
        ("_amax", "wide", "amax 'wide' is no number"),
        ("_amax", -1.0, "at least 0, got -1.0"),
        ("amax", None, "amax None is no number"),
    ],
)
def test_a_field_set_to_what_cannot_be_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        setattr(TensorQuantizer(), field, value)


def test_what_only_shows_when_a_tensor_passes_is_refused_then() -> None:
    clips, watches = TensorQuantizer(), TensorQuantizer()
    clips._if_clip = True
    with pytest.raises(SuiteError, match="no learned amax to clip at"):
        clips(X)
    watches._calibrator = None
    for act in (watches.enable_calib, watches.load_calib_amax):
        with pytest.raises(SuiteError, match="has no calibrator"):
            act()
    with pytest.raises(SuiteError, match="is per tensor, got axis 0"):
        TensorQuantizer(QuantDescriptor(calib_method="histogram"))._axis = 0


def test_a_width_that_is_set_reaches_the_calibrator_too() -> None:
    quantizer = TensorQuantizer(QuantDescriptor(calib_method="histogram"), if_calib=True)
    quantizer._num_bits = 3
    quantizer(X)
    quantizer.load_calib_amax("mse", stride=64)
    expected = HistogramCalibrator(3)
    expected.collect(X)
    assert quantizer.amax == expected.compute_amax("mse", stride=64)


def test_torchs_own_fake_quantize_is_used_on_the_full_range_where_the_class_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TensorQuantizer, "use_fb_fake_quant", True)
    tensor, channels = TensorQuantizer(QuantDescriptor(amax=0.5)), TensorQuantizer(QuantDescriptor(axis=0))
    assert torch.equal(tensor(X), torch.fake_quantize_per_tensor_affine(X, 0.5 / 127, 0, -128, 127))
    x = randn(3, 4)
    scale, zero_point = x.abs().amax(1) / 127, torch.zeros(3, dtype=torch.int32)
    assert torch.equal(
        channels(x), torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, -128, 127)
    )
    for wrong, x in (("in float32, got torch.float16", X.half()), ("has one axis", randn(2, 2))):
        axis = None if x.dim() == 1 else (0, 1)
        with pytest.raises(SuiteError, match=wrong):
            TensorQuantizer(QuantDescriptor(axis=axis))(x)


def test_calibrators_take_nvidias_arguments() -> None:
    tracking = MaxCalibrator(8, None, False, track_amax=True)
    for factor in (1, 3, 2):
        tracking.collect(X * factor)
    assert [float(amax) for amax in tracking.amaxs] == [1, 3, 2]
    assert tracking.compute_amax() == 3
    with pytest.raises(SuiteError, match="track_amax=True"):
        _ = MaxCalibrator().amaxs
    with pytest.warns(DeprecationWarning, match="grow_method 'append'"):
        HistogramCalibrator(8, None, False, 128, "append", True, False)


def test_without_torch_hist_the_bins_are_those_of_numpy() -> None:
    ours = HistogramCalibrator(8, None, False, num_bins=64, torch_hist=False)
    first, second = randn(500).abs() + 0.3, randn(500, seed=1).abs() * 2
    ours.collect(first)
    counts, edges = np.histogram(first.numpy(), 64)
    assert ours._calib_hist is not None and ours._calib_bin_edges is not None
    assert np.allclose(ours._calib_bin_edges, edges)
    assert np.abs(ours._calib_hist.numpy() - counts).sum() <= 2  # a value on an edge
    ours.collect(second)
    assert float(ours._calib_bin_edges[-1]) >= float(second.max())
    assert int(ours._calib_hist.sum()) == 500 + int((second >= edges[0]).sum())


def test_the_modules_have_nvidias_names() -> None:
    names = "calib.calibrator calib.histogram calib.max nn.modules.clip nn.modules.quant_conv nn.modules.quant_linear"
    names += " nn.modules.quant_pooling nn.modules.tensor_quantizer nn.modules._utils tensor_quant"
    for name in names.split():
        assert importlib.import_module(f"suite.pytorch_quantization.{name}")


class Scaled(nn.Linear, _utils.QuantMixin):
    """A layer of a user's own, made as NVIDIA's guide says."""

    default_quant_desc_weight = QuantDescriptor(axis=0)

    def __init__(self, inputs: int, outputs: int, **kwargs: Any) -> None:
        super().__init__(inputs, outputs)
        self.init_quantizer(*_utils.pop_quant_desc_in_kwargs(self.__class__, **kwargs))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(
            self._input_quantizer(input), self._weight_quantizer(self.weight), self.bias
        )


def test_a_layer_of_ones_own_is_made_with_init_quantizer() -> None:
    layer = Scaled(5, 3, quant_desc_input=QuantDescriptor(4))
    equal = QuantLinear(5, 3, quant_desc_input=QuantDescriptor(4))
    equal.load_state_dict(layer.state_dict())
    x = randn(2, 5)
    assert torch.equal(layer(x), equal(x))
    layer.init_quantizer(QuantDescriptor(), QuantDescriptor(axis=0), num_layers=2)
    assert len(layer._input_quantizers) == len(layer._weight_quantizers) == 2
    with pytest.raises(SuiteError, match="bits cannot be passed to Scaled"):
        Scaled(5, 3, bits=8)


def test_a_layer_that_is_there_becomes_a_quantized_one_as_detectors_do_it() -> None:
    """The pattern of NVIDIA's YOLO examples: an object of the quantized class takes over all of the float layer's."""
    plain = nn.Conv2d(3, 4, 3, padding=1)
    layer = QuantConv2d.__new__(QuantConv2d)
    for name, value in vars(plain).items():
        setattr(layer, name, value)
    layer.init_quantizer(*_utils.pop_quant_desc_in_kwargs(QuantConv2d))
    made = QuantConv2d(3, 4, 3, padding=1)
    made.load_state_dict(plain.state_dict())
    x = randn(2, 3, 6, 6)
    assert torch.equal(layer(x), made(x))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pooling_of_a_quantized_input(dims: int) -> None:
    x = randn(2, 3, *[6] * dims)
    for name, arguments in (("MaxPool", (2,)), ("AvgPool", (3, 1)), ("AdaptiveAvgPool", (2,))):
        layer = getattr(quant_nn, f"Quant{name}{dims}d")(*arguments, quant_desc_input=QuantDescriptor(4))
        plain = getattr(nn, f"{name}{dims}d")(*arguments)
        assert torch.equal(layer(x), plain(TensorQuantizer(QuantDescriptor(4))(x)))
        assert isinstance(layer, _utils.QuantInputMixin)


def test_an_empty_batch_passes_under_a_fixed_amax_and_has_no_range_of_its_own() -> None:
    layer, empty = QuantConv2d(3, 4, 3), torch.zeros(0, 3, 8, 8)
    with pytest.raises(SuiteError, match="empty tensor"):
        layer(empty)
    layer.input_quantizer.amax = 1.0
    assert layer(empty).shape == (0, 4, 6, 6)
    with pytest.raises(SuiteError, match="empty tensor"):
        MaxCalibrator().collect(empty)
    histogram = HistogramCalibrator()
    histogram.collect(empty)
    assert histogram.compute_amax("entropy") is None


def test_a_descriptor_is_made_again_of_its_dict() -> None:
    for descriptor in (
        QuantDescriptor(),
        QuantDescriptor(4, "w", axis=(0, 1)),
        QuantDescriptor(amax=[1.0, 2.0]),
    ):
        assert QuantDescriptor(**descriptor.dict()) == descriptor
    assert QuantDescriptor(unsigned=True).dict() == {"num_bits": 8, "name": None, "unsigned": True}
    with pytest.raises(AttributeError):
        QuantDescriptor()._num_bits = 4  # type: ignore[attr-defined]
