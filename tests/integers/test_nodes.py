"""Networks that read the shape of a tensor, or take a mean instead of a pooling layer, become integers too."""

from __future__ import annotations

import pytest
import torch
from fakes.exported import RESHAPING, Finished
from torch import fx, nn

from suite.export import agreement, runtimes
from suite.export.agreement import Simulation
from suite.formats import torch_ao
from suite.formats.rebuild import rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.integers.integer_network import IntegerNetwork
from suite.integers.nodes import gives_shape, with_pooling_modules
from suite.measure.dataflow import dataflow
from suite.methods.mse import Mse
from suite.recipe import Calibration

SEVEN = Mse(7, 8, feed=Calibration(images=128, batch=64))


@pytest.fixture(scope="module")
def reshaping(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("reshaping"), RESHAPING)


@pytest.fixture(scope="module")
def simulation(reshaping: Finished) -> Simulation:
    source = rebuilt(reshaping.recipe(SEVEN), reshaping.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    return Simulation.of(network, source.images("test"), 200)


def test_a_network_that_reads_shapes_answers_in_integers_as_its_simulation(simulation: Simulation) -> None:
    network = simulation.model
    assert isinstance(network, fx.GraphModule)
    found = simulation.beside(IntegerNetwork(network))
    assert found["flips"] <= 1 and found["mean_difference"] < 0.02


def test_torch_ao_computes_a_network_that_reads_shapes(simulation: Simulation) -> None:
    if reason := runtimes.why_not("torch_ao"):
        pytest.skip(reason)
    network = simulation.model
    assert isinstance(network, fx.GraphModule)
    found = simulation.beside(torch_ao.QuantizedOperators(network))
    assert found["flips"] <= 1 and found["mean_difference"] < 0.02


def test_onnx_runtime_pools_the_means_of_a_network_in_integers(
    simulation: Simulation, needs_onnx: None
) -> None:
    network = runtimes.Exported("key", "name", simulation.model, simulation.example, int8=True)
    content = network.onnx()
    found = agreement.difference(
        simulation.logits, agreement.answered(content, simulation.batches(), integer_kernels=True)
    )
    assert found["flips"] <= 1 and found["mean_difference"] < 0.02
    kernels = agreement.kernels(agreement.optimized(content))
    assert "ReduceMean" not in kernels and kernels.get("QLinearGlobalAveragePool") == 1, kernels


@pytest.mark.parametrize("layer", ["stem", "conv1", "conv2", "hidden", "means", "pooled", "linear"])
def test_every_layer_of_it_has_a_dataflow(reshaping: Finished, layer: str) -> None:
    steps = [row.step for row in dataflow(reshaping.recipe(SEVEN), layer, reshaping.folders).rows]
    assert steps[-1] == ("times s_x*s_w" if layer == "linear" else "output, clamped")


class Means(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        kept = nn.functional.adaptive_avg_pool2d(x, 1)
        return [
            x.mean((2, 3)),
            x.mean(dim=[-1, -2], keepdim=True),
            torch.mean(x, (3, 2)),
            kept,
            x.mean((1, 2)),
            x.mean(1),
            x.mean(),
            nn.functional.adaptive_avg_pool2d(x, 2),
        ]


def test_means_over_the_last_two_dimensions_become_pooling_and_others_stay() -> None:
    x = torch.randn(3, 5, 4, 4)
    network = with_pooling_modules(fx.symbolic_trace(Means()))
    for one, other in zip(network(x), Means()(x), strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-6)
    assert sum(node.op == "call_module" for node in network.graph.nodes) == 4


class Shapes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, sides = x.size(0), x.shape[2] * x.size()[3]
        return (x + x).reshape(rows, x.size(1), sides + 0)[:, 0]


def test_numbers_of_a_shape_are_told_from_values() -> None:
    nodes = fx.symbolic_trace(Shapes()).graph.nodes
    shapes = [node.name for node in nodes if gives_shape(node)]
    assert shapes == ["size", "getattr_1", "getitem", "size_1", "getitem_1", "mul", "size_2", "add_1"]
