"""The contract that every method keeps. A new file in suite/methods is tested here by being there."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from fakes.methods import EACH, KINDS, LIKE_ANOTHER, ONE_OF_A_KIND, images, inserted, make, quantized
from fakes.networks import two_blocks
from torch import Tensor, nn

from suite.quantizers.layers import Quantized, stored_parameters
from suite.quantizers.model_size import size_mb
from suite.recipe import Dataset, Network, Pretrained, Recipe
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import to_json
from suite.run import pipeline
from suite.run.in_memory import InMemoryFeed
from suite.steps import LayerTimes
from suite.sweeps.values import from_json

START = Pretrained(Network(), Dataset("digits"), "weights.pt", "0" * 64)


@pytest.fixture
def network() -> nn.Module:
    return two_blocks()


def widths(name: str) -> list[int]:
    named = {field.name for field in dataclasses.fields(KINDS[name])}
    if "weight_bits" not in named:
        return [KINDS[name]().weight_bits]
    # At 2 bits the range of a QAT of source 001 puts nearly every activation on zero; the slope of BatchNorm there is
    # 1 / sqrt(eps) = 316, and through 19 of them the gradient overflows: such a training may diverge, and says so.
    return [3, 4, 8, 16] if KINDS[name]().trains_by else [2, 3, 4, 8, 16]


@cache
def made(name: str, bits: int) -> tuple[nn.Module, dict[str, Tensor], nn.Module]:
    """A network, its state before, and what the method made of it."""
    network = two_blocks()
    before = copy.deepcopy(network.state_dict())
    return network, before, quantized(make(name, bits), network)


def usual(name: str) -> set[int]:
    """The widths that `make test` tries: the smallest and 8, of a method that goes another's way 4."""
    found = {4} if name in LIKE_ANOTHER else {min(widths(name)), 8}
    return found if found & set(widths(name)) else {*widths(name)}


EACH_WIDTH = pytest.mark.parametrize(
    ("name", "bits"),
    [
        pytest.param(n, b, marks=[pytest.mark.long] * (b not in usual(n)))
        for n in sorted(KINDS)
        for b in widths(n)
    ],
)


def test_all_nine_methods_of_the_sources_are_found() -> None:
    sources = "linear int_cast qat_symmetric qat_asymmetric histogram percentile builtin_int8 k_sigma amax"
    assert set(sources.split()) <= set(KINDS)


@EACH
def test_a_method_is_a_frozen_value_that_survives_json(name: str) -> None:
    method = KINDS[name]()
    assert method == KINDS[name]() and hash(method) == hash(KINDS[name]())
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.weight_bits = 3
    recipe = Recipe(START, method)
    assert from_json(to_json(recipe)) == recipe
    assert method.name == name
    assert isinstance(method.revision, int) and to_json(method)["revision"] == method.revision


@EACH
def test_its_docstring_names_its_source(name: str) -> None:
    text = __import__(KINDS[name].__module__, fromlist=["x"]).__doc__
    assert text and ("ource 00" in text or "arXiv " in text)


TOGETHER: dict[str, dict[str, Any]] = {"latency_ms": {"times": LayerTimes((("conv", 8, 8, 1.0),))}}
"""What a field needs beside it."""


@EACH
def test_every_field_changes_the_key(name: str) -> None:
    method = KINDS[name]()
    changed = 0
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        other: Any = {bool: not value, int: 6, float: 0.5 if value == 0.25 else 0.25}.get(type(value))
        if field.name == "rounding":
            other = "nearest"
        if other is not None:
            fresh = dataclasses.replace(method, **{field.name: other}, **TOGETHER.get(field.name, {}))
            assert Recipe(START, fresh).key != Recipe(START, method).key, field.name
            assert Recipe(START, fresh).name != Recipe(START, method).name, field.name
            changed += 1
    assert changed or name == "builtin_int8"


@EACH_WIDTH
def test_it_quantizes_a_copy_and_leaves_the_model_alone(name: str, bits: int) -> None:
    network, before, converted = made(name, bits)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    x = images(8).normalized(images(8).pixels)
    with torch.no_grad():
        logits = converted(x)
    assert logits.shape == (8, 10)
    assert size_mb(converted) <= size_mb(network) * 1.001


@ONE_OF_A_KIND
def test_what_is_evaluated_is_the_copy(name: str, network: nn.Module) -> None:
    """A copied model whose forward was patched would run the original, whatever the copy's weights are."""
    method = make(name, 8)
    if name == "builtin_int8":  # integer kernels have no parameters to change; what they are made of has
        model = pipeline.quantized(method.steps()[:1], InMemoryFeed(network))
    else:
        model = quantized(method, network)
    x = images(8).normalized(images(8).pixels)
    outputs = []
    with torch.no_grad():
        for value in (0.0, 0.01):  # larger ones overflow, which an observer refuses
            for parameter in model.parameters():
                parameter.fill_(value)
            outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[0][:1].expand_as(outputs[0])), (
        "with zero weights all images are the same"
    )
    assert not torch.equal(*outputs)


@ONE_OF_A_KIND
def test_the_same_seed_gives_the_same_model(name: str, network: nn.Module) -> None:
    x = images(8).normalized(images(8).pixels)
    outputs = []
    for _ in range(2):
        torch.manual_seed(7)
        model = quantized(make(name, 4), network)
        with torch.no_grad():
            outputs.append(model(x))
    assert torch.equal(outputs[0].nan_to_num(), outputs[1].nan_to_num())


@EACH_WIDTH
def test_weights_take_no_more_values_than_their_bits_allow(name: str, bits: int) -> None:
    _, _, converted = made(name, bits)
    checked = 0
    for module in converted.modules():
        if noted := stored_parameters(module).get("weight"):
            weight: Tensor = module.weight.detach()  # type: ignore[assignment]
            stored = noted.bits
            method = make(name, bits)
            assert stored in (bits, getattr(method, "first_last", bits), *getattr(method, "widths", ()))
            channels = weight.flatten(1) if weight.dim() > 1 else weight[None]
            assert all(len(channel.unique()) <= 2**stored for channel in channels)
            checked += 1
    assert checked >= 5 or name == "builtin_int8"


@ONE_OF_A_KIND
def test_sixteen_bits_cost_next_to_nothing_and_error_falls_with_bits(name: str, network: nn.Module) -> None:
    if name in ("builtin_int8", "int_cast", "mixed") or KINDS[name]().trains_by:
        return
    x = images(64).normalized(images(64).pixels)
    with torch.no_grad():
        exact = network(x)
        errors = []
        for bits in (4, 8, 16):
            method = make(name, bits)
            if name == "linear":
                method = dataclasses.replace(method, map_back=True, input_cast=False, rounding="nearest")
            if name == "k_sigma":
                method = dataclasses.replace(method, k=30.0)  # nothing is clipped: only rounding is left
            if name == "percentile":
                method = dataclasses.replace(method, percentile=1.0)
            if hasattr(method, "first_last"):
                method = dataclasses.replace(method, first_last=None)
            errors.append(
                float((quantized(method, network)(x) - exact).square().mean() / exact.square().mean())
            )
    assert errors[0] > errors[1] > errors[2], errors
    assert errors[2] < 1e-3, errors


@EACH
@pytest.mark.parametrize("bits", [1, 17, 0])
def test_bits_out_of_range_are_refused_by_name(name: str, bits: int) -> None:
    for field in ("weight_bits", "act_bits"):
        if field in {item.name for item in dataclasses.fields(KINDS[name])}:
            with pytest.raises(
                SuiteError, match=f"{field} {bits} is out of range; use a whole number from 2 to 16"
            ):
                KINDS[name](**{field: bits})


def test_the_first_layers_input_is_left_alone_in_qat(network: nn.Module) -> None:
    for name in ("qat_symmetric", "qat_asymmetric"):
        held = [m for m in inserted(KINDS[name](), network).modules() if isinstance(m, Quantized)]
        assert held[0].input is None and all(m.input is not None for m in held[1:])
        assert len(held) == len([m for m in network.modules() if isinstance(m, nn.Conv2d)])


def test_other_settings_out_of_range_are_refused() -> None:
    from suite.methods.builtin_int8 import BuiltinInt8
    from suite.methods.k_sigma import KSigma
    from suite.methods.linear import Linear
    from suite.methods.percentile import Percentile
    from suite.methods.qat_symmetric import QatSymmetric

    with pytest.raises(SuiteError, match="percentile 99.9 is out of range"):
        Percentile(percentile=99.9)
    with pytest.raises(SuiteError, match="momentum 1.5 is out of range"):
        QatSymmetric(momentum=1.5)
    with pytest.raises(SuiteError, match="k must be above 0"):
        KSigma(k=0)
    with pytest.raises(SuiteError, match="dtype 'int8' is unknown; use one of float32, float16"):
        Linear(dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="engine 'cudnn' is unknown"):
        BuiltinInt8(engine="cudnn")  # type: ignore[arg-type]
