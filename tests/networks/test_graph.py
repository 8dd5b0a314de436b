"""First and last layer, pairs, blocks and chains of networks whose structure is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import suite
from suite import networks
from suite.methods.scheme import Scheme
from suite.networks.graph import Block, graph_of, left_in_float
from suite.quantizers.layers import Quantized
from suite.recipe import Calibration, Network


def without_weights(network: Network) -> nn.Module:
    """Its modules, made in no time."""
    with torch.device("meta"):
        return networks.build(network)


class Functional(nn.Module):
    """ReLU and the addition are functions, and the modules stand in another order than they compute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 10)
        self.norm2, self.norm1 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv2, self.conv1 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(x)))
        x = (x + self.conv3(y)).relu()
        result: Tensor = self.linear(x.mean((2, 3)))
        return result


class Depends(nn.Module):
    """Which way it computes depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.one(x) if x.sum() > 0 else self.two(x)
        return result


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet20_has_nine_blocks_and_a_pair_for_each_convolution(shortcut: str) -> None:
    graph = graph_of(networks.build(Network("resnet20", shortcut)))  # type: ignore[arg-type]
    assert (graph.first, graph.last, graph.untraced) == (("conv1",), ("linear",), "")
    assert len(graph.layers) == len(graph.conv_bn) + 1 == (20 if shortcut == "A" else 22)
    assert graph.conv_bn[:2] == (("conv1", "bn1"), ("layer1.0.conv1", "layer1.0.bn1"))
    assert [block.module for block in graph.blocks] == [f"layer{k}.{n}" for k in (1, 2, 3) for n in (0, 1, 2)]
    assert graph.blocks[0].layers == ("layer1.0.conv1", "layer1.0.conv2")
    assert len(graph.blocks[3].layers) == (2 if shortcut == "A" else 3)
    assert graph.chains == tuple((f"{b.module}.conv1", f"{b.module}.conv2") for b in graph.blocks)


def test_layers_that_take_one_tensor_or_are_added_are_tied() -> None:
    """Of ResNets the 1x1 shortcut, the layer beside it and the last of the block; an addition behind an activation,
    as that of a block without one, ties nothing."""
    for name, last, blocks in (("resnet20", "conv2", (2, 3)), ("resnet50", "conv3", (1, 2, 3, 4))):
        found = graph_of(without_weights(Network(name))).tied
        first = "conv1"
        assert found == tuple(
            (f"layer{k}.0.{first}", f"layer{k}.0.{last}", f"layer{k}.0.shortcut.0") for k in blocks
        )
    assert graph_of(without_weights(Network("resnet20", "A"))).tied == ()
    assert graph_of(without_weights(Network("torchvision/vgg11_bn"))).tied == ()
    assert graph_of(Functional()).tied == ()
    projections = graph_of(without_weights(Network("torchvision/mobilenet_v2"))).tied
    added = [(2, 3), (4, 5, 6), (7, 8, 9, 10), (11, 12, 13), (14, 15, 16)]
    stages = tuple(tuple(f"features.{number}.conv.2" for number in stage) for stage in added)
    assert projections == stages, "all linear, and a sum is added again"


class Sums(nn.Module):
    """Chains of sums: of layers, of a normalized sum, of a sum behind a ReLU, and of two sums."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.e, self.f, self.g = (nn.Conv2d(3, 3, 1) for _ in "abcdefg")
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x) + 1 + x
        second = self.norm(first + self.b(first.sigmoid()))
        third = torch.add(second, self.c(second.relu()))
        other = self.d(third.relu()) + self.e(third.sigmoid())
        other += third.relu()
        behind = self.f(other.tanh()) + F.relu(other)
        result: Tensor = behind + self.g(behind.exp())
        return result


def test_a_sum_of_sums_ties_all_that_is_in_it_and_a_relu_ends_it() -> None:
    assert graph_of(Sums()).tied == (("a", "b", "c"), ("d", "e"), ("f", "g"))


def test_resnet50_has_sixteen_blocks_of_chains_of_three() -> None:
    graph = graph_of(without_weights(Network("resnet50_imagenet")))
    assert (graph.first, graph.last) == (("conv1",), ("fc",))
    assert len(graph.layers) == 54 and len(graph.conv_bn) == 53 and len(graph.blocks) == 16
    assert ("layer1.0.downsample.0", "layer1.0.downsample.1") in graph.conv_bn
    assert set(graph.blocks[0].layers) == {
        f"layer1.0.{n}" for n in ("conv1", "conv2", "conv3", "downsample.0")
    }
    assert [len(chain) for chain in graph.chains] == [3] * 16


def test_mobilenet_v2_has_its_ten_blocks_and_chains_over_depthwise_convolutions_with_relu6() -> None:
    graph = graph_of(without_weights(Network("torchvision/mobilenet_v2")))
    assert (graph.first, graph.last) == (("features.0.0",), ("classifier.1",))
    assert len(graph.layers) == 53 and len(graph.conv_bn) == 52
    assert len(graph.blocks) == 10 and graph.blocks[0].module == "features.3.conv"
    assert graph.chains[0][:3] == ("features.0.0", "features.1.conv.0.0", "features.1.conv.1")
    inside = {name for chain in graph.chains for name in chain}
    assert len(inside) == 53 and "features.0.2" in graph.clipped


def test_a_vgg_is_one_chain_until_its_flattening() -> None:
    graph = graph_of(without_weights(Network("torchvision/vgg11_bn")))
    assert (graph.first, graph.last) == (("features.0",), ("classifier.6",))
    assert len(graph.conv_bn) == 8 and not graph.blocks
    assert [len(chain) for chain in graph.chains] == [8, 3]  # 512 channels become 25,088 inputs in between


def test_functions_are_seen_and_the_order_is_that_of_computing() -> None:
    graph = graph_of(Functional())
    assert graph.layers == ("conv1", "conv2", "conv3", "linear")
    assert (graph.first, graph.last) == (("conv1",), ("linear",))
    assert graph.conv_bn == (("conv1", "norm1"), ("conv2", "norm2"))
    assert graph.blocks == (Block("", ("conv2", "conv3")),)
    assert graph.chains == (("conv2", "conv3"),)


def test_a_network_that_cannot_be_traced_says_why_and_has_the_order_of_its_modules() -> None:
    graph = graph_of(Depends())
    assert "control flow" in graph.untraced
    assert (graph.layers, graph.first, graph.last) == (("one", "two"), ("one",), ("two",))
    assert not graph.conv_bn and not graph.blocks and not graph.chains


def test_a_layer_or_batch_norm_that_computes_twice_is_in_no_pair_and_no_chain() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(F.relu(self.norm(self.other(F.relu(self.norm(self.conv(x)))))))
            return result

    graph = graph_of(Twice())
    assert (graph.first, graph.last, graph.conv_bn, graph.chains) == (("conv",), ("conv",), (), ())


def test_what_no_quantizer_reaches_is_named() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.conv = nn.ConvTranspose2d(3, 8, 2), nn.Conv2d(8, 8, 3, groups=8)
            self.attention, self.linear = nn.MultiheadAttention(8, 2), nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.up(x)).mean((2, 3))
            result: Tensor = self.linear(self.attention(x, x, x)[0])
            return result

    model = Mixed()
    assert left_in_float(model) == ("up.weight", "attention.in_proj_weight", "attention.out_proj.weight")
    assert left_in_float(networks.build(Network("resnet20"))) == ()
    quantized = suite.quantize(model, Scheme(8, 8), torch.randn(1024, 3, 4, 4))
    assert {name for name, module in quantized.named_modules() if isinstance(module, Quantized)} == {
        "conv",
        "linear",
    }
    assert quantized(torch.randn(2, 3, 4, 4)).shape == (2, 10)


@pytest.mark.parametrize("kind", ["conv1d", "conv3d", "grouped"])
def test_a_convolution_of_any_dimensions_and_groups_is_quantized_as_what_it_computes(kind: str) -> None:
    torch.manual_seed(0)
    dims = {"conv1d": 1, "conv3d": 3, "grouped": 2}[kind]
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims](4, 8, 3, groups=2, padding=1, bias=True)
    x = torch.randn(64, 4, *[6] * dims)
    quantized = suite.quantize(nn.Sequential(conv), Scheme(8, 8, calibration=Calibration(64, 64)), x)
    with torch.no_grad():
        expected, got = conv(x), quantized(x)
    assert 0 < float((got - expected).norm() / expected.norm()) < 0.02
