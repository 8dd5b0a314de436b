"""What is recorded below the accuracy is what was computed, for every method."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from fakes.methods import ONE_OF_A_KIND, calibrated_on, images, inserted, make
from fakes.networks import lived_in
from torch import Tensor, nn

from suite.methods.amax import Amax
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.quantizers.layers import LAYERS, Quantized, bake
from suite.ranks import Ranks
from suite.run import layer_report, pipeline
from suite.run.in_memory import InMemoryFeed
from suite.train.evaluate import Score, evaluate


def sqnr_db(x: Tensor, q: Tensor) -> float:
    x, q = x.double(), q.double()
    return float(10 * torch.log10(x.square().sum() / (x - q).square().sum()))


class Reporting(InMemoryFeed):
    """One that keeps the last float weights, as a run does."""

    weights: ClassVar[layer_report.Weights] = {}

    def before_rounding(self, model: nn.Module) -> None:
        self.weights = layer_report.float_weights(self.reference, model)  # type: ignore[misc]


def looked_at(method: Any, network: nn.Module) -> tuple[dict[str, Any], nn.Module, layer_report.Weights]:
    """The layers by name, the converted model, and the last float weights: the way that a run goes."""
    data = images()
    feed = Reporting(network, data.normalized(data.pixels), data.labels)
    model = pipeline.quantized(calibrated_on(method, 64, 32).steps(), feed).eval()
    weights = feed.weights or layer_report.float_weights(network, model)
    recorded = json.loads(
        layer_report.encoded(layer_report.layers(network, weights, model, layer_report.batch(images())))
    )
    assert recorded["format"] == 1 and recorded["images"] == layer_report.IMAGES
    return {layer["name"]: layer for layer in recorded["layers"]}, model, weights


@cache
def looked_at_by(name: str) -> tuple[dict[str, Any], nn.Module, layer_report.Weights]:
    """The same of a method at 4 bits, made once."""
    return looked_at(make(name, 4), lived_in())


def float_layers(network: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, LAYERS)}


@ONE_OF_A_KIND
def test_every_layer_is_recorded_in_the_networks_order_and_its_weights_as_they_are(
    name: str, network: nn.Module
) -> None:
    recorded, model, weights = looked_at_by(name)
    assert list(recorded) == list(float_layers(network)) and len(recorded) == 22
    rounded = 0
    packed = dict(model.model.named_modules()) if name == "builtin_int8" else {}  # type: ignore[union-attr]
    state = {key.replace(".layer.weight", ".weight"): value for key, value in model.state_dict().items()}
    state = {key.removeprefix("model."): value for key, value in state.items()}
    for layer, both in recorded.items():
        x, record = weights[layer], both["weight"]
        assert x is not None
        q = packed[layer].weight().dequantize() if packed else state[f"{layer}.weight"].float()
        histogram, span = record["histogram"], record["range"]
        assert len(histogram["counts"]) == layer_report.BINS and sum(histogram["counts"]) == x.numel()
        assert (histogram["low"], histogram["high"]) == pytest.approx(
            (float(x.min()), float(x.max())), rel=1e-5
        )
        if torch.equal(x, q):
            assert record["sqnr_db"] is None and span is None
            continue
        rounded += 1
        assert record["sqnr_db"] == pytest.approx(sqnr_db(x, q), abs=1e-3)
        assert span["low"] == sorted(span["low"]) and span["high"] == sorted(span["high"])
        slack = 1e-5 * (span["high"][1] - span["low"][0])
        assert span["low"][0] - slack <= float(q.min()) and float(q.max()) <= span["high"][1] + slack
    floats = {"k_sigma": 1, "qat_symmetric": 1, "qat_asymmetric": 1}.get(name, 0)  # the linear layer
    assert rounded == 22 - floats


def _feeding(held: dict[str, Quantized]) -> dict[str, str]:
    """The rounded ReLU or pooling whose output each layer of a ResNet-20 gets."""
    if "relu" not in held:
        return {}
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    before = ["relu", *(f"{block}.relu2" for block in blocks)]
    fed = {"linear": "pool"}
    for block, relu in zip(blocks, before, strict=False):
        fed |= {f"{block}.conv1": relu, f"{block}.conv2": f"{block}.relu1"}
        if f"{block}.shortcut.0" in held:
            fed[f"{block}.shortcut.0"] = relu
    return fed


@ONE_OF_A_KIND
def test_an_input_is_compared_with_what_the_layer_multiplies(name: str) -> None:
    recorded, model, _ = looked_at_by(name)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    held = {key: module for key, module in model.named_modules() if isinstance(module, Quantized)}
    for key, module in held.items():
        if module.input is not None:
            module.input.register_forward_hook(
                lambda _, args, out, key=key: seen.update({key: (args[0], out)})  # type: ignore[misc]
            )
    with torch.no_grad():
        model(layer_report.batch(images()))
    for key, relu in _feeding(held).items():  # rounded twice: before the ReLU or the pooling, and after
        seen[key] = held[relu].layer(seen[relu][0]).view_as(seen[key][1]), seen[key][1]  # type: ignore[operator]
    compared = 0
    for layer, both in recorded.items():
        record = both["input"]
        if name != "linear":  # whose integers overflow
            assert sum(record["histogram"]["counts"]) > 1000
        if layer in seen:
            x, q = seen[layer]
            assert record["sqnr_db"] == pytest.approx(sqnr_db(x, q), abs=1e-3)
            slack = 1e-5 * float(q.max() - q.min())
            assert record["range"]["low"][0] - slack <= float(q.min())
            assert float(q.max()) <= record["range"]["high"][1] + slack
            compared += 1
        elif name != "builtin_int8" and not (name == "linear" and layer == "conv1"):
            assert record["sqnr_db"] is None and record["range"] is None
    weights_alone = make(name, 4).act_bits == 32
    of_all = 20 if "qat" in name or name == "apot" else 22  # without the first and the last input
    assert compared == (0 if weights_alone or name == "builtin_int8" else of_all)


def test_the_input_of_an_integer_kernel_is_the_float_networks_on_its_grid(network: nn.Module) -> None:
    recorded, model, _ = looked_at(BuiltinInt8(), network)
    taken: dict[str, Tensor] = {}
    grids: dict[str, Tensor] = {}
    for layer, module in float_layers(network).items():
        module.register_forward_pre_hook(lambda _, args, k=layer: taken.update({k: args[0]}))  # type: ignore[misc]
        model.model.get_submodule(layer).register_forward_pre_hook(  # type: ignore[union-attr]
            lambda _, args, k=layer: grids.update({k: args[0]})  # type: ignore[misc]
        )
    with torch.no_grad():
        network(layer_report.batch(images()))
        model(layer_report.batch(images()))
    for layer, x in taken.items():
        scale, zero_point = grids[layer].q_scale(), grids[layer].q_zero_point()
        q = (torch.clamp(torch.round(x / scale) + zero_point, 0, 255) - zero_point) * scale
        assert recorded[layer]["input"]["sqnr_db"] == pytest.approx(
            sqnr_db(x, q), abs=0.05
        )  # ties round elsewhere
        ends = [-zero_point * scale, (255 - zero_point) * scale]
        assert recorded[layer]["input"]["range"]["low"] == pytest.approx([ends[0]] * 2, rel=1e-5)
        assert recorded[layer]["input"]["range"]["high"] == pytest.approx([ends[1]] * 2, rel=1e-5)
    assert len(taken) == 22


def test_the_published_integers_drown_the_weights_and_the_cast_of_the_image_is_reported(
    network: nn.Module,
) -> None:
    recorded, _, _ = looked_at(Linear(8), network)
    assert all(layer["weight"]["sqnr_db"] < -40 for layer in recorded.values())
    assert all(
        layer["weight"]["range"] == {"low": [-128, -128], "high": [127, 127]} for layer in recorded.values()
    )
    x = layer_report.batch(images())
    assert recorded["conv1"]["input"]["sqnr_db"] == pytest.approx(sqnr_db(x, x.trunc()), abs=1e-3)
    half, _, _ = looked_at(Linear(16, dtype="float16", weights_evaluated=False, input_cast=False), network)
    assert all(
        60 < layer["weight"]["sqnr_db"] < 90 and not layer["weight"]["range"] for layer in half.values()
    )


def test_the_range_of_k_sigma_is_alpha_and_clips(network: nn.Module) -> None:
    recorded, _, _ = looked_at(KSigma(5), network)
    alpha = 3 * float(network.conv1.weight.detach().std(correction=0))  # type: ignore[operator, union-attr]
    for layer in list(recorded)[:-1]:
        assert recorded[layer]["weight"]["range"]["high"] == pytest.approx([alpha] * 2, rel=1e-5)
    assert recorded["conv1"]["weight"]["histogram"]["high"] > alpha


def test_a_layer_with_nan_and_one_that_is_gone_are_null_and_the_rest_is_reported(network: nn.Module) -> None:
    model = inserted(Amax(4, 4), network)
    weights = layer_report.float_weights(network, model)
    model = bake(model)
    with torch.no_grad():
        model.layer1[0].conv1.layer.weight[0] = math.nan
    model.linear = nn.Sequential(nn.Flatten())
    recorded = layer_report.layers(network, weights, model, None)
    by_name = {layer["name"]: layer for layer in recorded["layers"]}
    assert by_name["layer1.0.conv1"]["weight"]["sqnr_db"] is None and by_name["linear"]["weight"] is None
    assert sum(bool(layer["weight"] and layer["weight"]["sqnr_db"]) for layer in recorded["layers"]) == 20
    layer_report.encoded(recorded)


def test_it_looks_at_half_precision_and_constant_and_infinite_tensors() -> None:
    x = torch.linspace(-1, 1, 1000)
    rounded = x.to(torch.bfloat16)
    record = layer_report._record(rounded, rounded.float().mul(8).round().div(8).to(torch.bfloat16), None)
    assert record is not None and 20 < record["sqnr_db"] < 30
    flat = layer_report._record(torch.full((8,), 2.0), torch.full((8,), 1.0), None)
    assert (
        flat is not None and flat["histogram"]["counts"][0] == 8 and flat["sqnr_db"] == pytest.approx(6.0206)
    )
    bad = layer_report._record(
        torch.tensor([1.0, math.inf]), torch.ones(2), (torch.tensor(-math.inf), torch.ones(()))
    )
    assert bad == {"sqnr_db": None, "range": None, "histogram": None}


class Fixed(nn.Module):
    """Answers the logits it was given, image by image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.at = logits, 0

    def forward(self, x: Tensor) -> Tensor:
        self.at += len(x)
        return self.logits[self.at - len(x) : self.at]


def test_the_diagonal_of_the_confusion_is_the_count_of_top_1_whatever_is_nan_or_tied() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (64, 10), generator=generator).float()
    logits[torch.rand(64, 10, generator=generator) < 0.2] = math.nan
    logits[5:9] = math.nan
    logits[9] = -math.inf
    *_, score = evaluate(Fixed(logits), images(64), Ranks(), batch=7)
    assert isinstance(score, Score)
    recorded = layer_report.confusion(images(64).labels, score.predicted, 10, None)
    dense = torch.zeros(10, 10, dtype=torch.int64)
    for true, row in enumerate(recorded["rows"]):
        for predicted, count in row.items():
            dense[true, int(predicted)] = count
    assert dense.diagonal().sum() == score.correct.sum() > 3
    assert dense.sum() == 64 - 4 and (score.predicted[5:9] == -1).all()


def test_the_names_of_ten_classes_are_kept_beside_a_head_of_more_outputs() -> None:
    names = layer_report.confusion(torch.tensor([0, 1]), torch.tensor([0, 3]), 4, ["cat", "dog"])["names"]
    assert names == ["cat", "dog", "2", "3"]
    assert layer_report.confusion(torch.tensor([0]), torch.tensor([0]), 2, ["a", "b", "c"])["names"] is None
