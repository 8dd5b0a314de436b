"""What published reconstructions do beside rounding: learned scales, zero points, augmented images, all at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes.reconstructing import Recording, reconstructed, short
from fakes.residual import CALIBRATION, images, residual

from suite.data.images import Images
from suite.methods.best import Best
from suite.methods.qdrop import Qdrop
from suite.methods.scheme import Scheme
from suite.quantizers.layers import stored_parameters
from suite.recipe import Calibration, Dataset, Sgd
from suite.recipe.errors import SuiteError
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized


def test_scales_of_weights_are_learned_where_asked_for() -> None:
    (without, _), (model, feed) = (reconstructed(residual(), short(weight_step_lr=lr)) for lr in (0.0, 0.01))
    assert all(
        unit["error"] <= unit["error_nearest"] for unit in feed.kept["reconstruction-both.json"]["units"]
    )
    layers: list[Any] = [found.get_submodule("blocks.0.conv1").layer for found in (without, model)]
    scales = [stored_parameters(layer)["weight"].scale for layer in layers]
    assert not torch.equal(*scales)
    weight = layers[1].weight.detach()
    integers = weight / scales[1][:, None, None, None]
    torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-5)


def test_steps_and_biases_of_the_whole_network_are_learned_from_where_the_blocks_ended() -> None:
    """Against the float network, whose biases are not those that the blocks learned."""
    network, x = residual(), images()
    feed = Recording(network, x)
    *steps, bake = Scheme(3, 3, calibration=CALIBRATION).steps()
    together = short(unit="network", learns="steps", bias_lr=1e-3)
    model = quantized([*steps, short(bias_lr=0.01), together, bake], feed)
    *_, last = feed.kept["reconstruction-both.json"]["units"]
    (whole,) = feed.kept["reconstruction-steps.json"]["units"]
    assert whole["unit"] == "network" and len(whole["layers"]) == 6
    assert whole["error_nearest"] == pytest.approx(last["error"], rel=1e-5)
    assert whole["error"] < whole["error_nearest"]
    with torch.no_grad():
        error = float((model(x) - network(x)).square().sum(1).mean())
    assert error == pytest.approx(whole["error"], rel=1e-4)


def test_best_ends_with_what_was_learned_together_where_nothing_is_corrected_after_it() -> None:
    network, x = residual(), images()
    feed = Recording(network, x)
    method = Best(3, 3, None, iterations=20, batch=8, feed=CALIBRATION, together=0.5, corrected=False)
    model = quantized(method.steps(), feed)
    (whole,) = feed.kept["reconstruction-steps.json"]["units"]
    assert whole["unit"] == "network" and len(whole["layers"]) == 6
    with torch.no_grad():
        error = float((model(x) - network(x)).square().sum(1).mean())
    assert error == pytest.approx(whole["error"], rel=1e-4)


def test_views_are_crops_of_the_images_that_are_drawn_and_of_no_others() -> None:
    pixels = torch.arange(1, 41, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 3, 8, 8).contiguous()
    split = Images(pixels, torch.arange(40), Dataset("digits", (0.0,) * 3, (1.0,) * 3, 8))
    calibration = Calibration(10, 4, seed=3)
    (plain,) = split.calibration_batches(replace(calibration, batch=10))
    found = torch.cat(list(split.views(Sgd(1, 4, 1.0, pad=2), calibration, 3)))
    assert found.shape == (30, 3, 8, 8)
    counts = torch.unique(found.amax((1, 2, 3)), return_counts=True)
    assert torch.equal(counts[0], plain[:, 0, 0, 0].sort().values) and counts[1].tolist() == [3] * 10
    assert (found == 0).any(), "some are shifted, with black borders"
    with pytest.raises(SuiteError, match="give augmented ones, and a Reconstruct without views"):
        reconstructed(residual(), short(views=1))


def test_inputs_that_may_be_negative_have_a_zero_point_where_asked_for() -> None:
    """Of the image all eight levels; of what is behind ReLU the range is as it was, to a sixteenth of an octave."""
    feed = InMemoryFeed(residual(), images() + 0.5)
    narrow, whole = (
        quantized(Qdrop(3, 3, None, iterations=1, batch=8, feed=CALIBRATION, zero_points=own).steps(), feed)
        for own in (False, True)
    )
    stems: list[Any] = [model.get_submodule("stem") for model in (narrow, whole)]
    assert [len(stem.input(images() + 0.5).unique()) for stem in stems] == [7, 8]
    for name in ("blocks.0.conv1", "blocks.1.conv2"):
        layers: list[Any] = [model.get_submodule(name) for model in (narrow, whole)]
        one, other = (layer.input for layer in layers)
        assert other.zero_point == 0 and other.grid.quant_max == one.grid.quant_max == 7
        assert float(other.scale / one.scale) == pytest.approx(1, rel=0.05)
