"""NVIDIA's interface: source 004's example as written, and layers equal to the suite's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fakes.tensors import randn
from torch import Tensor, nn
from torch.nn import functional as F

import suite
from suite.methods.amax import Amax
from suite.pytorch_quantization import (
    HistogramCalibrator,
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantDescriptor,
    QuantLinear,
    TensorQuantizer,
)
from suite.recipe import Calibration

CALIBRATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "max": ("max", {}),
    "percentile": ("histogram", {"method": "percentile", "percentile": 99.9}),
    "mse": ("histogram", {"method": "mse"}),
    "entropy": ("histogram", {"method": "entropy"}),
}


EXAMPLE = """
import torch.nn as nn
import torch.nn.functional as F

from pytorch_quantization.nn import QuantConv2d, QuantLinear
from pytorch_quantization.tensor_quant import QuantDescriptor

class LeNet(nn.Module):
    def __init__(self):
        super(LeNet, self).__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


class QuantLeNet(nn.Module):
    def __init__(self):
        super(QuantLeNet, self).__init__()
        self.conv1 = QuantConv2d(1, 10, kernel_size=5)
        self.conv2 = QuantConv2d(10, 20, kernel_size=5)
        self.fc1 = QuantLinear(320, 50)
        self.fc2 = QuantLinear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)
"""
"""The example of source 004 as it stands there, its import lines too."""


@pytest.fixture
def lenet() -> Callable[[str], nn.Module]:
    """Source 004's LeNet or QuantLeNet, by its name, with the same weights each time."""
    names: dict[str, Any] = {}
    exec(EXAMPLE.replace("pytorch_quantization", "suite.pytorch_quantization"), names)

    def make(name: str) -> nn.Module:
        torch.manual_seed(0)
        model: nn.Module = names[name]()
        return model.eval()

    return make


@pytest.fixture
def describe_inputs(monkeypatch: pytest.MonkeyPatch) -> Callable[[QuantDescriptor], None]:
    """Sets the default of the inputs of both kinds of layer, for this test alone."""

    def describe(descriptor: QuantDescriptor) -> None:
        for layer in (QuantConv2d, QuantLinear):
            monkeypatch.setattr(layer, "default_quant_desc_input", layer.default_quant_desc_input)
            layer.set_default_quant_desc_input(descriptor)

    return describe


def quantizers(model: nn.Module) -> Iterator[TensorQuantizer]:
    return (module for module in model.modules() if isinstance(module, TensorQuantizer))


@torch.no_grad()
def calibrate(model: nn.Module, batches: list[Tensor], **arguments: Any) -> None:
    """As users of NVIDIA's package do it: all quantizers watch, the float model runs, each takes its amax."""
    for quantizer in quantizers(model):
        quantizer.disable_quant()
        quantizer.enable_calib()
    for batch in batches:
        model(batch)
    for quantizer in quantizers(model):
        histogram = isinstance(quantizer._calibrator, HistogramCalibrator)
        quantizer.load_calib_amax(**(arguments if histogram else {}))
        quantizer.disable_calib()
        quantizer.enable_quant()


def test_the_example_runs_as_written_but_for_its_import_lines(lenet: Callable[[str], nn.Module]) -> None:
    model, x = lenet("QuantLeNet"), randn(2, 1, 28, 28)
    plain = lenet("LeNet")
    model.load_state_dict(plain.state_dict())
    assert model(x).shape == (2, 10)
    error = (model(x) - plain(x)).abs().max()
    assert 0 < error < 0.02
    for quantizer in quantizers(model):
        quantizer.disable()
    assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_the_example_is_calibrated_and_then_trained(
    name: str, lenet: Callable[[str], nn.Module], describe_inputs: Callable[[QuantDescriptor], None]
) -> None:
    method, arguments = CALIBRATORS[name]
    describe_inputs(QuantDescriptor(num_bits=4, calib_method=method))
    model, plain = lenet("QuantLeNet"), lenet("LeNet")
    model.load_state_dict(plain.state_dict())
    x, labels = randn(32, 1, 28, 28), torch.arange(32) % 10
    calibrate(model, list(torch.split(x, 8)), **arguments)
    assert len(fixed := [quantizer.amax for quantizer in quantizers(model)]) == 8
    assert all(amax is not None and bool((amax > 0).all()) for amax in fixed)
    error = F.l1_loss(model(x), plain(x))
    assert 0 < error < 0.1

    before = F.nll_loss(model(x), labels).item()
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for _ in range(12):
        sgd.zero_grad()
        F.nll_loss(model(x), labels).backward()  # type: ignore[no-untyped-call]
        sgd.step()
    model.eval()
    assert F.nll_loss(model(x), labels).item() < before - 0.05
    assert all(torch.equal(a, q.amax) for a, q in zip(fixed, quantizers(model), strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("calibrated", [False, True])
def test_nvidias_interface_and_amax_give_equal_logits(
    bits: int,
    calibrated: bool,
    lenet: Callable[[str], nn.Module],
    describe_inputs: Callable[[QuantDescriptor], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    describe_inputs(QuantDescriptor(num_bits=bits))
    for layer in (QuantConv2d, QuantLinear):
        monkeypatch.setattr(layer, "default_quant_desc_weight", QuantDescriptor(num_bits=bits, axis=0))
    batches = [randn(8, 1, 28, 28, seed=seed) for seed in range(3)]
    model, plain = lenet("QuantLeNet"), lenet("LeNet")
    model.load_state_dict(plain.state_dict())
    method = Amax(bits, bits, Calibration(images=24) if calibrated else None)
    if calibrated:
        calibrate(model, batches)
    expected = suite.quantize(plain, method, batches)
    # 1, 1.5 and 3 times what was calibrated: the last two are clipped at both ends
    for factor in (1, 1.5, 3):
        x = randn(16, 1, 28, 28, seed=9) * factor
        assert torch.equal(model(x), expected(x))
        assert not torch.equal(model(x), plain(x))


@pytest.mark.parametrize(
    "options", [{"stride": 2, "padding": 1, "groups": 2}, {"dilation": 2, "bias": False}]
)
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
def test_a_convolution_in_each_number_of_dimensions_equals_torchs_fake_quantize_by_hand(
    options: dict[str, Any], mode: Any
) -> None:
    kinds = [(QuantConv1d, nn.Conv1d), (QuantConv2d, nn.Conv2d), (QuantConv3d, nn.Conv3d)]
    for dims, (quantized, plain) in enumerate(kinds, start=1):
        layer = quantized(4, 6, 3, padding_mode=mode, **options)
        by_hand = plain(4, 6, 3, padding_mode=mode, **options)
        x = randn(2, 4, *[9] * dims, seed=dims)
        scale = layer.weight.detach().flatten(1).abs().amax(1) / 127
        weight = torch.fake_quantize_per_channel_affine(
            layer.weight.detach(), scale, torch.zeros(6, dtype=torch.int32), 0, -127, 127
        )
        by_hand.load_state_dict(layer.state_dict() | {"weight": weight})
        rounded = torch.fake_quantize_per_tensor_affine(x, float(x.abs().max() / 127), 0, -127, 127)
        assert torch.equal(layer(x), by_hand(rounded))
        assert not torch.equal(layer(x), by_hand(x))


def test_a_state_dict_keeps_every_amax_under_nvidias_names(lenet: Callable[[str], nn.Module]) -> None:
    model, x = lenet("QuantLeNet"), randn(8, 1, 28, 28)
    assert model.state_dict().keys() == lenet("LeNet").state_dict().keys()
    calibrate(model, [x])
    state = model.state_dict()
    assert state["conv1._input_quantizer._amax"].shape == ()
    assert state["conv1._weight_quantizer._amax"].shape == (10, 1, 1, 1)
    assert state["fc2._weight_quantizer._amax"].shape == (10, 1)
    other = lenet("QuantLeNet")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(state)
    assert torch.equal(other(2 * x), model(2 * x))
    assert other.state_dict().keys() == state.keys()
    with pytest.raises(RuntimeError, match="_amax"):
        model.load_state_dict(lenet("LeNet").state_dict())


def test_defaults_are_of_one_class_and_arguments_come_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QuantConv2d, "default_quant_desc_weight", QuantConv2d.default_quant_desc_weight)
    QuantConv2d.set_default_quant_desc_weight(QuantDescriptor(num_bits=3))
    assert QuantConv2d(1, 1, 1).weight_quantizer.num_bits == 3
    assert QuantConv3d(1, 1, 1).weight_quantizer.num_bits == 8
    layer = QuantConv2d(1, 1, 1, quant_desc_weight=QuantDescriptor(num_bits=5, axis=0))
    assert (layer.weight_quantizer.num_bits, layer.weight_quantizer.axis) == (5, 0)
    assert layer.input_quantizer.axis is None
