"""What holds of every method on what a network can bring: dead channels, half precision, inf and NaN.

A new file in suite/methods is asked by being there.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fakes.methods import calibrated_on, inserted
from fakes.tensors import HALVES, NOT_FINITE, tensors
from hypothesis import example, given, settings
from torch import Tensor, nn

import suite
from suite import methods
from suite.quantizers.quantizer import Quantizer
from suite.recipe import Calibration, Precision, Sgd
from suite.recipe.errors import SuiteError

KINDS = methods.find()
EACH = pytest.mark.parametrize("name", sorted(KINDS))


def small() -> nn.Sequential:
    """A network of three layers whose BatchNorm has statistics."""
    torch.manual_seed(0)
    convolutions = [(nn.Conv2d(inputs, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()) for inputs in (3, 4)]
    layers = [layer for three in convolutions for layer in three]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    with torch.no_grad():
        model(images())
    return model.eval()


def images() -> Tensor:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def make(name: str, bits: int) -> Any:
    named = {field.name for field in dataclasses.fields(KINDS[name])}
    return KINDS[name](**{field: bits for field in ("weight_bits", "act_bits") if field in named})


def quantized(method: Any, network: nn.Module, x: Tensor) -> nn.Module:
    """What suite.quantize makes of the network, with the images `x` for every purpose."""
    method = calibrated_on(method, len(x), len(x))
    if method.trains_by:
        sgd = Sgd(epochs=1, batch=len(x), lr=1e-3, precision=Precision("O0"))
        method = dataclasses.replace(method, feed=sgd)
    return suite.quantize(network, method, x, torch.arange(len(x)), untrained=network)


def variants() -> Iterator[tuple[str, Any]]:
    """Every method as it is, and with each of its switches turned; those that may calibrate, calibrated too."""
    for name in sorted(KINDS):
        plain = KINDS[name]()
        yield name, plain
        for field in dataclasses.fields(plain):
            if isinstance(value := getattr(plain, field.name), bool):
                yield (
                    f"{name} {field.name}={not value}",
                    dataclasses.replace(plain, **{field.name: not value}),
                )
        if name == "amax":
            yield f"{name} calibrated", dataclasses.replace(plain, feed=Calibration())


@EACH
@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_weight_or_statistic_that_is_not_finite_is_refused_by_its_name(name: str, value: float) -> None:
    for tensor in ("0.weight", "3.weight", "8.bias", "1.running_var"):
        network = small()
        with torch.no_grad():
            network.state_dict()[tensor].view(-1)[1] = value
        with pytest.raises(SuiteError, match=f"{tensor} of the model holds inf or NaN; .* learning rate"):
            quantized(KINDS[name](), network, images())


ACTIVATIONS = [pytest.param(method, id=label) for label, method in variants() if method.act_bits < 32]


@pytest.mark.parametrize("method", ACTIVATIONS)
def test_an_activation_that_is_not_finite_is_refused_with_what_to_do(method: Any) -> None:
    with torch.no_grad():
        assert quantized(method, small(), images())(images()).isfinite().all()
    for value in NOT_FINITE:
        x = images()
        x[3, 1, 5, 5] = value
        with pytest.raises(SuiteError, match="inf or NaN.*learning rate"), torch.no_grad():
            quantized(method, small(), x)(x)  # a dynamic range is checked in the evaluation


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("amax", "the input of layer 3"),
        ("histogram", "the input of layer 2"),
        ("builtin_int8", "the output of _0"),
    ],
)
def test_the_error_names_the_layer(name: str, tensor: str) -> None:
    """A variance below zero is a number itself, and makes none of the first convolution's output."""
    network = small()
    network.get_buffer("1.running_var").fill_(-1.0)
    with pytest.raises(SuiteError, match=f"{tensor} holds inf or NaN"), torch.no_grad():
        quantized(make(name, 8), network, images())(images())


@EACH
@pytest.mark.parametrize("bits", [2, 16])
def test_weights_of_zeros_of_one_value_and_of_denormals_stay_finite_beside_others(
    name: str, bits: int
) -> None:
    network = small()
    with torch.no_grad():
        network.get_parameter("0.weight")[0] = 0
        network.get_parameter("3.weight")[1] = 0
        network.get_parameter("3.weight")[2] = 0.25
        network.get_parameter("8.weight").mul_(1e-41)
    with torch.no_grad():
        converted = quantized(make(name, bits), network, images())
        assert all(value.isfinite().all() for value in converted.parameters())
        assert converted(images()).isfinite().all()


def quantizers() -> dict[str, Quantizer]:
    """One of each kind that a method puts into a network, under the first method that does."""
    found: dict[Any, tuple[str, Quantizer]] = {}
    for label, method in variants():
        for module in inserted(method, small()).modules():
            if isinstance(module, Quantizer):
                settings = (module.axis, module.grid, module.symmetric, module.unsigned, module.steps)
                found.setdefault((type(module.observer), settings), (label, module))
    return {f"{label} {type(one.observer).__name__}": one for label, one in found.values()}


QUANTIZERS = quantizers()


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
@given(x=tensors(HALVES))
@example(x=torch.tensor([65504.0, 14256.0], dtype=torch.float16))
@settings(max_examples=6)
def test_each_quantizer_of_a_method_rounds_half_precision_as_the_same_values_in_float32(
    quantizer: Quantizer, x: Tensor
) -> None:
    """Same ranges, equal values but for one rounding; and finite, up to the largest half."""
    largest = torch.finfo(x.dtype).max
    half, wide = copy.deepcopy(quantizer), copy.deepcopy(quantizer)
    found, expected = half.settled(x), wide.settled(x.float())
    assert torch.equal(half.scale, wide.scale) and torch.equal(half.zero_point, wide.zero_point)
    assert found.dtype == x.dtype and found.isfinite().all()
    assert torch.equal(found, expected.clamp(-largest, largest).to(x.dtype))
