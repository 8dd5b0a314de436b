"""A method from parts is the named method that it equals, and its parts are in its key, its record and its model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from fakes.methods import calibrated_on, images, quantized
from torch import Tensor, nn

import suite
from suite.methods.amax import Amax
from suite.methods.entropy import Entropy
from suite.methods.mixed import Mixed
from suite.methods.mse import Mse
from suite.methods.scheme import Scheme
from suite.quantizers.layers import LAYERS, Quantized, stored_parameters
from suite.recipe import Calibration, Dataset, Network, Pretrained, Recipe
from suite.recipe.errors import SuiteError
from suite.recipe.method import Method
from suite.recipe.serialize import to_json
from suite.steps import (
    Deviations,
    Dorefa,
    FoldBatchNorm,
    LeastError,
    Lsq,
    MinMax,
    MovingMinMax,
    MovingPercentile,
    Percentile,
    ReestimateBatchNorm,
    RunCalibration,
    SearchedHistogram,
    TakeRanges,
    Uniform,
)
from suite.steps import Entropy as LeastLoss
from suite.steps.rounding import RangeOfHistogram
from suite.steps.weight_range import AffineLeastError
from suite.sweeps.values import from_json

START = Pretrained(Network(), Dataset("digits"), "weights.pt", "0" * 64)
BY_CHANNEL = Uniform(LeastError(), per="channel")


def logits(method: Method, network: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = quantized(method, network)(images(8).normalized(images(8).pixels))
    return result


@pytest.mark.parametrize(
    ("named", "scheme"),
    [
        (Mse(4, 4), Scheme(4, 4)),
        (Amax(4, 4), Scheme(4, 4, Uniform(per="channel"), Uniform(), calibration=None)),
        (Amax(4, 4, Calibration()), Scheme(4, 4, Uniform(per="channel"), Uniform(MinMax()))),
        (Entropy(4, 4), Scheme(4, 4, BY_CHANNEL, Uniform(LeastLoss(), unsigned=True))),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_scheme_computes_what_the_named_method_of_the_same_parts_does(
    named: Method, scheme: Scheme, network: nn.Module
) -> None:
    assert torch.equal(logits(named, network), logits(scheme, network))


def test_a_scheme_comes_back_from_json_and_each_part_changes_its_key_and_its_name() -> None:
    plain = Scheme()
    parts: list[dict[str, Any]] = [
        {"weights": Uniform(per="channel")},
        {"inputs": Uniform(Percentile(0.999))},
        {"inputs": Uniform(MovingMinMax(0.01))},
        {"first_last": 8},
        {"by_layer": (("layer1.0.conv1", 4, 8),)},
        {"before": (FoldBatchNorm(),)},
        {"after": (ReestimateBatchNorm(Calibration(64)),)},
        {"calibration": Calibration(512)},
        {"calibration": None},
        {"act_bits": 32},
    ]
    recipes = [Recipe(START, dataclasses.replace(plain, **part)) for part in [{}, *parts]]
    assert len({recipe.key for recipe in recipes}) == len({recipe.name for recipe in recipes}) == len(recipes)
    assert recipes[1].name == f"scheme w8a8 weights uniform (per channel) seed 0 from {START.key[:8]}"
    assert recipes[5].name == f"scheme w8a8 by layer layer1.0.conv1,4,8 seed 0 from {START.key[:8]}"
    for recipe in recipes:
        assert from_json(to_json(recipe)) == recipe


def test_ranges_come_from_histograms_where_they_can_and_batch_by_batch_where_not() -> None:
    def of(inputs: Uniform) -> list[type]:
        return [type(step) for step in Scheme(inputs=inputs).steps()]

    assert TakeRanges in of(Uniform(Percentile())) and RunCalibration not in of(Uniform(Percentile()))
    assert RunCalibration in of(Uniform(MovingMinMax())) and TakeRanges not in of(Uniform(MovingMinMax()))


def test_each_layer_has_the_width_that_is_named_for_it(network: nn.Module) -> None:
    """32 is float; what is named for one layer comes after the first and the last layer's."""
    method = Scheme(
        4, 4, first_last=8, by_layer=(("layer1.0.conv1", 2, 32), ("layer1.0.conv2", 32, 32), ("linear", 6, 5))
    )
    model = quantized(method, network)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            noted = stored_parameters(module.layer).get("weight")
            bits = noted.bits if noted else 32
            found[name] = bits, module.input.grid.bits if module.input else 32
    layers = [name for name, module in network.named_modules() if isinstance(module, LAYERS)]
    expected = {name: (4, 4) for name in layers if name != "layer1.0.conv2"}
    expected |= {"conv1": (8, 8), "layer1.0.conv1": (2, 32), "linear": (6, 5)}
    assert found == expected


@pytest.mark.parametrize(
    ("first_last", "image_bits", "expected"), [(8, 5, (8, 5)), (None, 8, (4, 8)), (None, 32, (4, 32))]
)
def test_the_image_may_have_a_width_of_its_own(
    network: nn.Module, first_last: int | None, image_bits: int, expected: tuple[int, int]
) -> None:
    method = Scheme(4, 3, first_last=first_last, image_bits=image_bits)
    model = quantized(method, network)
    found = {name: module for name, module in model.named_modules() if isinstance(module, Quantized)}
    image = found["conv1"].input
    weight = stored_parameters(found["conv1"].layer)["weight"].bits
    assert (weight, image.grid.bits if image else 32) == expected
    rest = [
        module.input.grid.bits
        for name, module in found.items()
        if module.input and name not in ("conv1", "linear")
    ]
    assert set(rest) == {3}
    words = {8: "8 bits", 5: "5 bits", 32: "float"}[image_bits]
    assert method.edges == f"{'8 bits' if first_last else 'as the rest'} but image {words}"


def test_weights_alone_leave_every_input_in_float(network: nn.Module) -> None:
    method = Scheme(4, 32)
    assert method.calibrates_on is None and Recipe(START, method).name.startswith("scheme w4 ")
    model = quantized(method, network)
    assert all(module.input is None for module in model.modules() if isinstance(module, Quantized))


def test_a_layer_that_is_not_there_is_named_with_those_that_are(network: nn.Module) -> None:
    with pytest.raises(
        SuiteError, match="'layer9' is no quantized layer; the layers are conv1, layer1.0.conv1"
    ):
        quantized(Scheme(by_layer=(("layer9", 4, 4),)), network)


def test_a_range_of_whole_tensors_is_refused_per_channel(network: nn.Module) -> None:
    with pytest.raises(SuiteError, match="MovingMinMax has no ranges per channel; use per='tensor'"):
        quantized(Scheme(weights=Uniform(MovingMinMax(), per="channel")), network)


def test_a_range_of_histograms_is_refused_without_a_calibration() -> None:
    with pytest.raises(SuiteError, match="Percentile is computed from histograms; give the scheme a calib"):
        Scheme(inputs=Uniform(Percentile()), calibration=None)


def test_a_range_of_histograms_is_refused_where_training_should_update_it() -> None:
    with pytest.raises(
        SuiteError, match="MinMax is computed once, from histograms, but updates is 'training'"
    ):
        Scheme(inputs=Uniform(MinMax(), updates="training"))
    assert Scheme(inputs=Uniform(MinMax(), updates="training"), calibration=None).calibrates_on is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(per="chanel"), "per 'chanel' is unknown; use one of tensor, channel"),  # type: ignore[arg-type]
        (lambda: Uniform(grid="afine"), "grid 'afine' is unknown; use one of narrow, signed, affine"),  # type: ignore[arg-type]
        (lambda: Lsq(updates="never"), "updates 'never' is unknown; use one of once, training, always"),  # type: ignore[arg-type]
        (lambda: Dorefa(of="input"), "of 'input' is unknown; use one of weights, inputs"),  # type: ignore[arg-type]
        (lambda: Percentile(99.9), "fraction 99.9 is out of range; use a fraction above 0 and up to 1"),
        (lambda: MovingMinMax(0), "momentum 0 is out of range"),
        (lambda: MovingPercentile(momentum=2), "momentum 2 is out of range"),
        (lambda: SearchedHistogram(search_bits=1), "search_bits 1 is out of range"),
        (lambda: Deviations(-1), "Deviations.k must be above 0, got -1"),
        (lambda: AffineLeastError(0), "AffineLeastError.power must be above 0, got 0"),
        (lambda: Recipe(START, Scheme(first_last=1)), "first_last 1 is out of range"),
        (lambda: Recipe(START, Scheme(image_bits=1)), "image_bits 1 is out of range"),
        (
            lambda: Recipe(START, Scheme(first_last=32, image_bits=8)),
            "image_bits 8 has no effect where the image",
        ),
        (
            lambda: Recipe(START, Scheme(4, 32, image_bits=8)),
            "image_bits 8 has no effect where the image",
        ),
        (
            lambda: Mixed(Scheme(4, 4, image_bits=8)),
            "the image has that of the first layer's input",
        ),
        (lambda: Recipe(START, Scheme(by_layer=(("conv1", 4, 40),))), "by_layer conv1 40 is out of range"),
    ],
)
def test_a_part_that_cannot_be_is_refused_when_it_is_made_and_not_in_a_run(make: Any, message: str) -> None:
    """A typo in a word was taken for the other choice, and a width was refused by the run that met it."""
    with pytest.raises(SuiteError, match=message):
        make()


OF_HISTOGRAMS = [MinMax(), LeastError(), LeastLoss(), Percentile(0.999)]


@pytest.mark.parametrize("range", OF_HISTOGRAMS, ids=lambda value: type(value).__name__)
def test_a_range_of_histograms_is_put_on_the_grid_that_the_inputs_ask_for(
    range: RangeOfHistogram, network: nn.Module
) -> None:
    """An affine grid spends no integer on the negative values that an input after ReLU has not."""
    x = images().normalized(images().pixels)
    errors, steps = {}, {}
    for grid in ("narrow", "signed", "affine"):
        wanted = Uniform(range, grid=grid)  # type: ignore[arg-type]
        model = quantized(Scheme(32, 4, inputs=wanted), network)
        inputs = [module.input for module in model.modules() if isinstance(module, Quantized)]
        assert len(inputs) == 22
        assert all(one and one.grid == Uniform(grid=grid).quantizer(4).grid for one in inputs)
        assert all(one and one.symmetric == (grid != "affine") for one in inputs)
        steps[grid] = torch.stack([one.scale for one in inputs if one])
        with torch.no_grad():
            errors[grid] = float((model(x) - network(x)).square().mean())
    assert torch.equal(steps["narrow"], steps["signed"]) and (steps["affine"] < steps["narrow"]).all()
    assert errors["affine"] < errors["narrow"]


def test_a_range_of_histograms_is_put_on_a_power_of_two_where_that_is_asked_for(network: nn.Module) -> None:
    scales = []
    for power_of_two in (False, True):
        model = quantized(Scheme(32, 8, inputs=Uniform(MinMax(), power_of_two=power_of_two)), network)
        inputs = [module.input for module in model.modules() if isinstance(module, Quantized)]
        scales.append(torch.stack([one.scale for one in inputs if one]))
    assert torch.allclose(scales[1], scales[0] * 127 / 128)


def test_steps_before_and_after_are_applied(network: nn.Module) -> None:
    folded = quantized(Scheme(8, 8, before=(FoldBatchNorm(),)), network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    again = (ReestimateBatchNorm(Calibration(images=64, batch=32)),)
    plain, estimated = (quantized(Scheme(3, 3, after=after), network) for after in ((), again))
    moved = [
        not torch.equal(mine.running_mean, other.running_mean)  # type: ignore[arg-type]
        for mine, other in zip(plain.modules(), estimated.modules(), strict=True)
        if isinstance(mine, nn.BatchNorm2d) and isinstance(other, nn.BatchNorm2d)
    ]
    assert all(moved) and len(moved) == 21


def test_a_scheme_quantizes_a_network_of_torchvision() -> None:
    from suite.networks.torchvision_import import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=10).eval()
    x = torch.randn(8, 3, 64, 64)
    method = calibrated_on(Scheme(8, 8, first_last=8), 8, 8)
    model = suite.quantize(network, method, x)
    with torch.no_grad():
        exact, found = network(x), model(x)
    assert (found - exact).square().mean() < 0.01 * exact.square().mean()
