"""A network is divided into residual blocks and the layers between them, which together are the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes.networks import lived_in
from fakes.reconstructing import reconstructed, short
from fakes.residual import CALIBRATION, images, prepared, residual
from torch import Tensor, nn

from suite import networks
from suite.methods.scheme import Scheme
from suite.quantizers.layers import Quantized
from suite.recipe import Network
from suite.recipe.errors import SuiteError
from suite.reconstruction.units import parts_of, run
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import FoldBatchNorm, Insert


def test_units_are_residual_blocks_and_the_layers_between_them() -> None:
    parts = parts_of(prepared(residual()), "block")
    found = [(unit.name, unit.layers) for part in parts for unit in part.units]
    blocks = [(f"blocks.{n}", (f"blocks.{n}.conv1", f"blocks.{n}.conv2")) for n in range(2)]
    assert found == [("stem", ("stem",)), *blocks, ("linear", ("linear",))]


def test_units_of_the_resnets_are_their_blocks_folded_or_not() -> None:
    for before in ((), (FoldBatchNorm(),)):
        *steps, _ = Scheme(4, 4, calibration=CALIBRATION, before=before).steps()
        model = quantized(steps, InMemoryFeed(lived_in(), torch.randn(24, 3, 32, 32)))
        names = [unit.name for part in parts_of(model, "block") for unit in part.units]
        assert names == ["conv1", *(f"layer{n}.{m}" for n in (1, 2, 3) for m in range(3)), "linear"]
        layers = [unit.name for part in parts_of(model, "layer") for unit in part.units]
        assert len(layers) == len([m for m in model.modules() if isinstance(m, Quantized)])


@pytest.mark.parametrize("unit", ["layer", "block"])
def test_the_units_one_after_the_other_are_the_network(unit: Any) -> None:
    model, x = prepared(residual()), images()
    with torch.no_grad():
        expected, y = model(x), x
        for part in parts_of(model, unit):
            y = run(model, part.nodes, {part.input: y}, part.output)
    assert torch.equal(y, expected)


class Attending(nn.Module):
    """Attention of two layers' outputs, which gives a tuple; or, `stacked`, a tuple that is taken as a whole."""

    def __init__(self, stacked: bool = False) -> None:
        super().__init__()
        self.conv, self.query, self.key = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 8)
        self.attention, self.linear = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 10)
        self.stacked = stacked

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        query, key = self.query(x), self.key(x)
        if self.stacked:
            return self.linear(torch.stack(torch.broadcast_tensors(query, key)).mean((0, 2)))  # type: ignore[no-any-return]
        return self.linear(self.attention(query, key, x)[0].mean(1))  # type: ignore[no-any-return]


def test_what_gives_a_tuple_ends_no_unit_and_where_it_must_that_is_an_error() -> None:
    torch.manual_seed(0)
    network = Attending().eval()
    for unit, layers in (("block", [["conv"], ["query", "key"], ["linear"]]), ("layer", None)):
        _, feed = reconstructed(network, short(unit=unit, iterations=2))
        units = feed.kept["reconstruction-both.json"]["units"]
        assert [one["layers"] for one in units] == (layers or [["conv"], ["query"], ["key"], ["linear"]])
        assert all(one["error"] <= one["error_nearest"] for one in units)
    with pytest.raises(
        SuiteError, match="the output of broadcast_tensors has shape (tuple|list) for 24 images"
    ):
        reconstructed(Attending(stacked=True).eval(), short())


def units_of(network: nn.Module) -> list[tuple[str, int]]:
    """(name, number of layers) of each unit of an untouched network."""
    model = Insert().apply(
        FoldBatchNorm().apply(network.eval(), InMemoryFeed(network)), InMemoryFeed(network)
    )
    return [(unit.name, len(unit.layers)) for part in parts_of(model, "block") for unit in part.units]


def test_the_units_of_a_resnet50_are_its_bottlenecks_with_their_shortcuts() -> None:
    found = units_of(networks.build(Network("resnet50")))
    blocks = [
        (f"layer{n + 1}.{m}", 4 if m == 0 else 3)
        for n, count in enumerate((3, 4, 6, 3))
        for m in range(count)
    ]
    assert found == [("conv1", 1), *blocks, ("linear", 1)]


def test_the_units_of_a_mobilenet_v2_are_its_inverted_residuals_and_single_layers() -> None:
    """Of 17 blocks ten have an addition; the others are as their layers, one after the other."""
    found = units_of(networks.build(Network("torchvision/mobilenet_v2")))
    blocks = [(name, count) for name, count in found if count > 1]
    assert [int(name.split(".")[1]) for name, _ in blocks] == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]
    assert all(count == 3 for _, count in blocks) and sum(count for _, count in found) == 53
