"""A weight that keeps its size has the integers of its range, and in each range the part of itself that it had."""

from __future__ import annotations

import runpy
from typing import Any

import pytest
import torch
from fakes import ROOT
from fakes.methods import calibrated_on, quantized
from fakes.reconstructing import Recording, short
from fakes.residual import CALIBRATION, images, residual
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from suite.integers.levels import integers_of
from suite.methods.scheme import Scheme
from suite.quantizers.layers import LAYERS, Quantized
from suite.recipe import Dataset, Network, Pretrained, Recipe
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import key_of, to_json
from suite.reconstruction.learned_rounding import LearnedRounding
from suite.run import pipeline
from suite.steps import CurrentMinMax, LeastError, Lsq, Uniform
from suite.steps.weight_range import AffineLeastError
from suite.sweeps.values import from_json

START = Pretrained(Network(), Dataset("digits"), "weights.pt", "0" * 64)
UNIFORMS = [
    Uniform(range, per, grid)  # type: ignore[arg-type]
    for per in ("tensor", "channel")
    for range, grid in (
        (CurrentMinMax(), "narrow"),
        (LeastError(), "narrow"),
        (LeastError(octaves=12), "signed"),
        (AffineLeastError(), "affine"),
    )
]


def keeping(uniform: Uniform) -> Uniform:
    return Uniform(uniform.range, uniform.per, uniform.grid, keep_size=True)


def by_range(x: Tensor, per: str) -> Tensor:
    """The sum of each range."""
    return x.double().flatten(1).sum(1) if per == "channel" else x.double().sum()


@given(
    st.sampled_from(UNIFORMS),
    st.integers(2, 16),
    st.integers(0, 2**31),
    st.sampled_from([1e-20, 1.0, 1e15]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_the_size_is_kept_in_each_range_and_each_weight_keeps_its_integer(
    uniform: Uniform, bits: int, seed: int, size: float, dtype: torch.dtype
) -> None:
    """To float32's rounding; the integers exactly, of weights with a few that are far larger than the rest."""
    size = 1.0 if dtype == torch.float16 else size
    w = (torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) ** 3 * size).to(dtype)
    w[1] = 0
    plain, kept = uniform.quantizer(bits), keeping(uniform).quantizer(bits)
    q, found = plain.settled(w.float()), kept.settled(w.float())
    shape = (-1, 1, 1, 1) if uniform.per == "channel" else ()
    integers = torch.round(q / plain.scale.reshape(shape))
    assert torch.equal(found, integers * kept.scale.reshape(shape))
    assert torch.equal(kept.zero_point, plain.zero_point)
    has = by_range(q.double() * w.double(), uniform.per) > 0
    wanted, left = (by_range(part.double() * w.double(), uniform.per) for part in (w, found))
    torch.testing.assert_close(left[has], wanted[has], rtol=1e-5, atol=0)
    assert torch.equal(keeping(uniform).quantizer(bits).settled(w), found.to(dtype))
    assert torch.equal(kept(w.float()), found), "the range stays, and rounding again changes nothing"


def test_the_factor_is_that_of_the_formula_by_hand() -> None:
    """Two bits up to the largest: 3, 1, 1 become 3, 0, 0, a projection of 9 where the weight has 11."""
    w = torch.tensor([[3.0, 1.0, 1.0], [2.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    quantizer = Uniform(CurrentMinMax(), per="channel", keep_size=True).quantizer(2)
    expected = torch.tensor([[11 / 3, 0.0, 0.0], [2.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(quantizer.settled(w), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(quantizer.scale[:2], torch.tensor([11 / 3, 2.0]), rtol=1e-6, atol=0)
    whole = Uniform(CurrentMinMax(), keep_size=True).quantizer(2)
    torch.testing.assert_close(whole.settled(w), w.sign() * (w.abs() > 1.5) * 19 / 7, rtol=1e-6, atol=0)


@pytest.mark.parametrize("range", [CurrentMinMax(), LeastError()], ids=lambda value: type(value).__name__)
def test_a_network_is_what_the_example_makes_of_it_after_its_weights_are_rounded(
    range: Any, network: nn.Module
) -> None:
    example = runpy.run_path(str(ROOT / "docs" / "examples" / "histogram_to_mse.py"))["KeepSize"]()
    theirs = quantized(Scheme(3, 32, Uniform(range, per="channel"), after=(example,)), network)
    ours = quantized(Scheme(3, 32, Uniform(range, per="channel", keep_size=True)), network)
    layers = [
        (one.layer, other.layer)
        for one, other in zip(theirs.modules(), ours.modules(), strict=True)
        if isinstance(one, Quantized) and isinstance(other, Quantized)
    ]
    assert len(layers) == 22
    for one, other in layers:
        torch.testing.assert_close(other.weight, one.weight, rtol=1e-5, atol=0)
        assert isinstance(other, LAYERS) and integers_of(other) is not None, "it can be exported"


def test_learned_rounding_starts_from_the_step_that_keeps_the_size() -> None:
    network = residual()
    *steps, bake = calibrated_on(
        Scheme(3, 3, Uniform(LeastError(), per="channel", keep_size=True)), 24, 24
    ).steps()
    plain = pipeline.quantized([*steps, bake], Recording(network, images()))
    scales = {
        name: module.layer.weight for name, module in plain.named_modules() if isinstance(module, Quantized)
    }
    model = pipeline.quantized([*steps, short(learns="steps"), bake], Recording(network, images()))
    for name, weight in scales.items():
        assert torch.equal(model.get_submodule(name).layer.weight, weight)  # type: ignore[union-attr, arg-type]
    feed = Recording(network, images())
    model = pipeline.quantized([*steps, short(learns="rounding", calibration=CALIBRATION)], feed)
    learned = {n: m.weight for n, m in model.named_modules() if isinstance(m, Quantized)}
    assert any(isinstance(one, LearnedRounding) for one in learned.values())
    for name, one in learned.items():
        if isinstance(one, LearnedRounding):
            whole = scales[name] / one.scale.reshape(-1, *(1,) * (scales[name].dim() - 1))
            torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-4)
    units = feed.kept["reconstruction-rounding.json"]["units"]
    assert all(unit["error"] <= unit["error_nearest"] for unit in units)


def test_the_gradient_passes_where_the_range_clips_nothing() -> None:
    """Straight through, times the ratio of the steps; none where it is clipped."""
    w = torch.tensor([[3.0, 1.0, 1.0, 0.2]], requires_grad=True)
    quantizer = Uniform(CurrentMinMax(), per="channel", keep_size=True, updates="always").quantizer(2)
    quantizer(w).sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, torch.full_like(w, 11.04 / 9))


def test_only_weights_that_are_rounded_to_even_levels_keep_their_size_and_the_default_is_not_in_the_key() -> (
    None
):
    with pytest.raises(SuiteError, match="keep_size is for weights, .* not in inputs"):
        Recipe(START, Scheme(inputs=Uniform(LeastError(), keep_size=True)))
    for option in ("keep_size", "power_of_two"):
        with pytest.raises(
            SuiteError, match=f"Lsq rounds in a way of its own, which {option} does not change"
        ):
            Lsq(**{option: True})  # type: ignore[arg-type]
    recipes = [Recipe(START, Scheme(weights=Uniform(keep_size=value))) for value in (False, True)]
    assert recipes[0].key != recipes[1].key and "keep size" in recipes[1].name
    assert "keep_size" not in to_json(recipes[0].method.weights, for_key=True)  # type: ignore[attr-defined]
    assert from_json(to_json(recipes[1])) == recipes[1] and key_of(recipes[1]) == recipes[1].key
