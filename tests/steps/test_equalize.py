"""Equalization leaves the float function as it is and makes ranges equal; corrected biases give the float means."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from fakes.networks import Branching, lived_in
from torch import Tensor, nn

from suite.methods.scheme import Scheme
from suite.quantizers.equalize import equalize, incoming, outgoing
from suite.quantizers.layers import Quantized
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError
from suite.recipe.method import Step
from suite.reconstruction.bias_correction import mean_of_relu
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import CorrectBias, Equalize, FoldBatchNorm

CALIBRATION = Calibration(24, 24)


def images(count: int = 24, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def chain(norm: bool = True) -> nn.Module:
    """Three convolutions, the second of them depthwise, and a linear layer; channels of very different ranges."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, groups in ((3, 1), (6, 6), (6, 1)):
        layers.append(nn.Conv2d(inputs, 6, 3, padding=1, groups=groups, bias=not norm))
        layers += [nn.BatchNorm2d(6), nn.ReLU()] if norm else [nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(torch.logspace(-1, 1, 6)[:, None, None, None])
        for _ in range(30):
            model(images())
    return model.eval()


@pytest.mark.parametrize("norm", [True, False])
def test_the_float_output_stays_and_the_ranges_become_equal(norm: bool) -> None:
    model, x = chain(norm), images()
    with torch.no_grad():
        before = model(x)
        pairs = equalize(model)
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    step = 3 if norm else 2
    convolutions = [str(n * step) for n in range(3)]
    assert pairs == (*pairwise(convolutions), (convolutions[2], str(3 * step + 2)))
    for one, other in pairs:
        behind = model.get_submodule(str(int(one) + 1)) if norm else None
        found = outgoing(model.get_submodule(one), behind), incoming(model.get_submodule(other))
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-6)


def test_a_residual_block_is_equalized_inside_and_never_across_its_addition() -> None:
    network, x = lived_in(), images(4, 32)
    model = copy.deepcopy(network)
    pairs = equalize(model)
    assert pairs == tuple((f"layer{n}.{m}.conv1", f"layer{n}.{m}.conv2") for n in (1, 2, 3) for m in range(3))
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_dead_channel_stays_as_it_is() -> None:
    model, x = chain(norm=False), images()
    with torch.no_grad():
        model.get_parameter("0.weight")[2] = 0
        model.get_parameter("2.weight")[4] = 0
        before = model(x)
        equalize(model)
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert all(value.isfinite().all() for value in model.parameters())


class Places(nn.Module):
    """Behind 16 channels of 16 places: a linear layer over the places, which is no layer over the channels."""

    def __init__(self, flattened: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 4, 4) if flattened else nn.Conv2d(3, 16, 3, padding=1)
        self.mix, self.linear, self.flattened = nn.Linear(16, 16), nn.Linear(16, 10), flattened

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        x = torch.relu(self.mix(x.flatten(2) if self.flattened else x))
        return self.linear(x.flatten(2).mean(2))  # type: ignore[no-any-return]


def behind_a_convolution(*layers: nn.Module) -> nn.Module:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), *layers, nn.ReLU(), nn.Conv2d(12, 6, 1), *head)


@pytest.mark.parametrize(
    ("make", "pairs"),
    [
        (
            lambda: behind_a_convolution(nn.Conv2d(6, 12, 3, groups=6)),
            (("0", "2"), ("2", "4"), ("4", "7")),
        ),
        (lambda: behind_a_convolution(nn.ConvTranspose2d(6, 12, 3)), (("4", "7"),)),
        (lambda: Places(flattened=True), ()),
        (lambda: Places(flattened=False), ()),
    ],
    ids=["two filters an input", "transposed", "places", "columns"],
)
def test_the_float_output_stays_whatever_takes_the_channels(
    make: Any, pairs: tuple[tuple[str, str], ...]
) -> None:
    """A convolution of two filters an input raised an error of torch's; scales between places and channels, or by the
    wrong dimension of a transposed convolution, changed the function."""
    torch.manual_seed(0)
    model, x = make().eval(), images()
    with torch.no_grad():
        before = model(x)
        assert equalize(model) == pairs
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_one_range_for_all_channels_loses_less_after_it() -> None:
    network, x = chain(norm=False), images()

    def error(*before: Step) -> float:
        method = Scheme(6, 32, first_last=32, before=(*before, FoldBatchNorm()), calibration=None)
        method = Scheme(**{**vars(method), "weights": type(method.weights)(per="tensor")})
        with torch.no_grad():
            model = quantized(method.steps(), InMemoryFeed(network, x))
            return float((model(x) - network(x)).square().mean())

    assert error(Equalize()) < 0.5 * error()


def corrected(network: nn.Module, **settings: Any) -> tuple[nn.Module, nn.Module, list[dict[str, Any]]]:
    """The model before and after, and what was recorded."""
    feed = InMemoryFeed(network, images())
    kept: dict[str, Any] = {}
    feed.keep = lambda name, content: kept.update(content)  # type: ignore[method-assign]
    scheme = Scheme(3, 3, calibration=CALIBRATION, before=(FoldBatchNorm(),))
    before = quantized(scheme.steps(), feed)
    step = CorrectBias(calibration=CALIBRATION, **settings)
    return before, step.apply(copy.deepcopy(before), feed), kept["layers"]


def outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The mean of each layer's output by channel."""
    means: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda module, args, y, name=name: means.update(
                {name: y.double().transpose(0, 1).flatten(1).mean(1)}
            )
        )
        for name, layer in model.named_modules()
        if isinstance(layer, (Quantized, nn.Conv2d, nn.Linear)) and not name.endswith(".layer")
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return means


def test_the_means_are_those_of_the_float_network_after_an_empirical_correction() -> None:
    """To 1e-6, in every layer, for all are corrected one after the other."""
    network, x = chain(), images()
    before, after, layers = corrected(network, guarded=False)
    assert all(layer["corrected"] for layer in layers)
    expected = outputs(FoldBatchNorm().apply(network, InMemoryFeed(network)), x)
    found, uncorrected = outputs(after, x), outputs(before, x)
    for name, mean in expected.items():
        torch.testing.assert_close(found[name], mean, rtol=0, atol=1e-6)
        assert (uncorrected[name] - mean).abs().max() > 1e-5


@pytest.mark.parametrize("how", ["empirical", "analytic"])
def test_a_guarded_correction_never_makes_the_error_of_a_block_larger(how: Any) -> None:
    network = lived_in()
    feed = InMemoryFeed(network, images(24, 32))
    kept: dict[str, Any] = {}
    feed.keep = lambda name, content: kept.update(content)  # type: ignore[method-assign]
    scheme = Scheme(3, 3, calibration=CALIBRATION, before=(FoldBatchNorm(),))
    quantized([*scheme.steps(), CorrectBias(how, calibration=CALIBRATION)], feed)
    layers = kept["layers"]
    assert {layer["corrected"] for layer in layers} == {True, False} or all(x["corrected"] for x in layers)
    assert all(layer["corrected"] == (layer["error"] <= layer["error_before"]) for layer in layers)
    assert any(layer["error"] < layer["error_before"] for layer in layers)


class Repeated(nn.Module):
    """A convolution that is called in two parts of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.again(torch.relu(self.again(torch.relu(self.stem(x))))))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_that_is_called_in_two_parts_is_corrected_once_and_never_to_a_larger_error(seed: int) -> None:
    """The second call took the bias that the first one had left, and its error alone decided."""
    torch.manual_seed(seed)
    network, x = Repeated().eval(), images()
    _, after, layers = corrected(network, guarded=True)
    assert [layer["layer"] for layer in layers] == ["stem", "again", "linear"]
    assert all(layer["corrected"] == (layer["error"] <= layer["error_before"]) for layer in layers)
    again = layers[1]

    @torch.no_grad()
    def calls(model: Any) -> tuple[Tensor, Tensor]:
        """What the first call of the layer gives, and what stands behind the second one."""
        first = model.again(torch.relu(model.stem(x)))
        return first, torch.relu(model.again(torch.relu(first)))

    exact, found = calls(network), calls(after)
    error = float((found[1] - exact[1]).square().sum(1).mean())
    assert again["error" if again["corrected"] else "error_before"] == pytest.approx(error, rel=1e-4)
    if again["corrected"]:
        means = [first.mean((0, 2, 3)) for first in (found[0], exact[0])]
        torch.testing.assert_close(*means, rtol=0, atol=1e-5)


def test_the_expected_mean_behind_relu_is_that_of_many_draws() -> None:
    """Ten standard errors of a million draws; of a deviation of zero exactly."""
    mean, deviation = (
        torch.tensor([-1.0, 0.0, 0.5, 2.0]).double(),
        torch.tensor([0.5, 1.0, 2.0, 0.25]).double(),
    )
    draws = torch.randn(1_000_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = (mean + deviation * draws).relu().mean(0)
    torch.testing.assert_close(mean_of_relu(mean, deviation), seen, rtol=0, atol=10 * 2.0 / math.sqrt(1e6))
    assert mean_of_relu(torch.tensor([-1.0, 2.0]), torch.zeros(2)).tolist() == [0, 2]


def test_the_analytic_shift_is_the_measured_one_where_inputs_are_as_batchnorm_says() -> None:
    """Of a 1x1 convolution behind BatchNorm and ReLU, normal channels; one of BatchNorm's weights is negative."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0]))
        norm.bias.copy_(torch.tensor([0.3, 0.0, -1.0]))
    stem = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        stem.weight.copy_(torch.eye(3)[:, :, None, None])
    network = nn.Sequential(stem, norm, nn.ReLU(), nn.Conv2d(3, 4, 1)).eval()
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    feed = InMemoryFeed(network, x)
    method = Scheme(3, 32, first_last=None, before=(FoldBatchNorm(),), calibration=None)
    by_how = []
    for how in ("empirical", "analytic"):
        step = CorrectBias(how, guarded=False, calibration=Calibration(64, 64))  # type: ignore[arg-type]
        model = quantized([*method.steps(), step], feed)
        by_how.append(model.get_submodule("3").layer.bias.detach())  # type: ignore[union-attr]
    plain = network.get_submodule("3").bias.detach()  # type: ignore[union-attr, operator]
    assert (by_how[0] - plain).abs().max() > 0.02
    torch.testing.assert_close(by_how[0], by_how[1], rtol=0, atol=0.01)


def test_a_network_that_cannot_be_traced_is_an_error_with_what_to_do() -> None:
    with pytest.raises(
        SuiteError,
        match="layers cannot be equalized: torch.fx cannot trace .*or rewrite the network's forward",
    ):
        quantized([Equalize()], InMemoryFeed(Branching()))
