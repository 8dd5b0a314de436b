"""What a block gets is rounded once for its layers and its shortcut; blocks of other networks are reconstructed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fakes.networks import Branching, lived_in
from fakes.reconstructing import Recording
from fakes.residual import CALIBRATION, images, residual
from fakes.zoo import bottlenecks, inverted
from torch import nn

from suite.methods.best import Best
from suite.methods.bias_correction import BiasCorrection
from suite.methods.brecq import Brecq
from suite.methods.mixed import Mixed
from suite.methods.qdrop import Qdrop
from suite.methods.scheme import Scheme
from suite.quantizers.block_inputs import BlockInput
from suite.quantizers.layers import Quantized
from suite.recipe import Sgd
from suite.recipe.errors import SuiteError
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import Insert, TrainOn

CARRIED = ("float", "rounded")


class Forked(nn.Module):
    """A block whose shortcut is a layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.shortcut = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.conv(x) + self.shortcut(x))
        found: torch.Tensor = self.linear(x.mean((2, 3)))
        return found


def test_a_shortcut_carries_what_its_blocks_layers_get() -> None:
    """By hand: the rounded input is one tensor, of the grid of the block's first layer when that rounds it itself."""
    network, x = residual(), images()
    model, plain = (
        quantized(Scheme(3, 3, calibration=CALIBRATION, carried=one).steps(), InMemoryFeed(network, x))  # type: ignore[arg-type]
        for one in ("rounded", "float")
    )
    with torch.no_grad():
        y = torch.relu(model.get_submodule("norm")(model.get_submodule("stem")(x)))
        for name in ("blocks.0", "blocks.1"):
            first: Any = plain.get_submodule(f"{name}.conv1")
            got: Any = model.get_submodule(f"{name}.block_input")
            y, once = first.input(y), got(y)
            assert torch.equal(once, y) and len(y.unique()) <= 8
            conv1, conv2 = (model.get_submodule(f"{name}.conv{n}") for n in (1, 2))
            assert isinstance(conv1, Quantized) and conv1.input is None
            y = torch.relu(conv2(torch.relu(conv1(y))) + y)
        expected = model.get_submodule("linear")(y.mean((2, 3)))
        assert torch.equal(model(x), expected) and not torch.equal(plain(x), expected)


def test_only_the_default_leaves_shortcuts_in_float_and_its_model_is_as_it_was() -> None:
    network = lived_in()
    plain, rounded = (Insert(carried=one).apply(network, InMemoryFeed(network)) for one in CARRIED)  # type: ignore[arg-type]
    assert type(plain) is type(network)
    found = {name: module for name, module in rounded.named_modules() if isinstance(module, BlockInput)}
    assert list(found) == [f"layer{n}.{m}.block_input" for n in (1, 2, 3) for m in range(3)]
    shortcuts = [name for name, _ in plain.named_modules() if name.endswith(("shortcut.0", "shortcut"))]
    readers = [reader for one in found.values() for reader in one.readers]
    assert len(readers) == 9 + sum(isinstance(plain.get_submodule(name), Quantized) for name in shortcuts)
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in rounded.named_parameters()}


@pytest.mark.parametrize("carried", CARRIED)
@pytest.mark.parametrize(
    ("network", "blocks"), [(bottlenecks, {"1": 4, "2": 3}), (inverted, {"2.conv": 3, "3.conv": 3})]
)
@pytest.mark.parametrize("method", [Qdrop, Brecq, Best])
def test_the_blocks_of_a_network_are_reconstructed_and_none_ends_worse(
    method: Any, network: Callable[[], nn.Module], blocks: dict[str, int], carried: str
) -> None:
    made = method(3, 3, None, iterations=6, batch=8, feed=CALIBRATION, carried=carried)
    feed = Recording(network(), images())
    model = quantized(made.steps(), feed)
    for name, content in feed.kept.items():
        if name.startswith("reconstruction-"):
            units = content["units"]
            assert {one["unit"]: len(one["layers"]) for one in units if len(one["layers"]) > 1} == blocks
            assert all(one["error"] <= one["error_nearest"] for one in units)
    assert any(one["error"] < one["error_nearest"] for one in units)
    assert model(images()).isfinite().all()


def test_the_step_of_what_a_shortcut_carries_is_learned_with_its_block() -> None:
    network, x = residual(), images()
    scheme = Scheme(3, 3, calibration=CALIBRATION, carried="rounded")
    before = quantized(scheme.steps(), InMemoryFeed(network, x))
    method = Qdrop(3, 3, None, iterations=20, batch=8, feed=CALIBRATION, carried="rounded")
    after = quantized(method.steps(), InMemoryFeed(network, x))
    scales = [float(model.get_submodule("blocks.1.block_input").input.scale) for model in (before, after)]  # type: ignore[union-attr, arg-type]
    assert scales[0] != scales[1]


def test_biases_are_corrected_behind_rounded_shortcuts_too() -> None:
    network, x = residual(), images()
    feed = Recording(network, x)
    quantized(BiasCorrection(3, 3, None, feed=CALIBRATION, carried="rounded").steps(), feed)
    layers = feed.kept["bias_correction.json"]["layers"]
    assert [one["layer"] for one in layers] == [
        *("stem", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "linear")
    ]
    assert any(one["corrected"] for one in layers)


def test_a_network_whose_shortcuts_cannot_be_rounded_is_refused_with_what_to_do() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))
    for network, message in (
        (plain, "has no residual block"),
        (Branching(), "torch.fx cannot trace the network"),
    ):
        with pytest.raises(SuiteError, match=f"{message}.*; use carried='float'"):
            Insert(carried="rounded").check_network(network, images())
    with pytest.raises(SuiteError, match="carried 'half' is unknown; use one of float, rounded"):
        Scheme(4, 4, carried="half")  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="widths by layer are not for scheme with carried='rounded'"):
        Mixed(Scheme(4, 4, carried="rounded"))
    with pytest.raises(SuiteError, match="carried='rounded' is for schemes that do not train"):
        Scheme(4, 4, carried="rounded", training=(TrainOn(Sgd(1, 8, 0.1)),))


def test_layers_that_read_one_rounded_input_have_it_at_one_width() -> None:
    wider = Scheme(4, 4, by_layer=(("shortcut", 4, 8),), calibration=CALIBRATION, carried="rounded")
    with pytest.raises(SuiteError, match="conv, shortcut get one rounded input together .* different widths"):
        quantized(wider.steps(), InMemoryFeed(Forked().eval(), images()))
    both = Scheme(
        4, 4, by_layer=(("conv", 4, 8), ("shortcut", 4, 8)), calibration=CALIBRATION, carried="rounded"
    )
    model = quantized(both.steps(), InMemoryFeed(Forked().eval(), images()))
    [held] = [one for one in model.modules() if isinstance(one, BlockInput)]
    assert held.input is not None and held.input.grid.bits == 8
    with pytest.raises(SuiteError, match="relu6 is not for it"):
        BiasCorrection(relu6="replaced")
