"""Networks of unusual parts compute the same before they are quantized, and are quantized as what they compute."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from fakes.methods import KINDS, calibrated_on
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import suite
from suite.launch.preflight import check_methods
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.k_sigma import KSigma
from suite.methods.mixed import Mixed
from suite.methods.mse import Mse
from suite.methods.scheme import Scheme
from suite.networks.graph import graph_of, left_in_float
from suite.quantizers.batch_norm import fold, freeze
from suite.quantizers.equalize import equalize
from suite.quantizers.layers import Quantized
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training
from suite.recipe.errors import SuiteError
from suite.train.sync_batch_norm import check_synchronizes


class Padded(nn.Conv2d):
    """Pads by itself, with ones."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), value=1.0), self.weight, self.bias)


class Standardized(nn.Conv2d):
    """Its weight has mean 0 and deviation 1 when it computes."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, w / w.std((1, 2, 3), keepdim=True), self.bias)


class NormAndSwish(nn.BatchNorm2d):
    """With an activation in it, as timm's BatchNormAct2d."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


class Unusual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pad, self.act, self.std = Padded(3, 4, 3), NormAndSwish(4), Standardized(4, 4, 3)
        self.norm, self.linear, self.flat = nn.BatchNorm2d(4), nn.Linear(4, 10), nn.BatchNorm1d(10)
        self.again, self.unused = self.std, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.std(self.act(self.pad(x)))))
        result: Tensor = self.flat(self.linear(F.relu(self.again(x)).mean((2, 3))))
        return result


def used(model: nn.Module, size: int = 16) -> nn.Module:
    """Evaluating, with statistics of its own."""
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, size, size) * 2 + 1)
    return model.eval()


def images(size: int = 16) -> Tensor:
    return torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))


def method(name: str) -> Any:
    return calibrated_on(KINDS[name](**({} if name == "builtin_int8" else {"weight_bits": 16})), 16, 8)


def same(one: nn.Module, other: nn.Module, x: Tensor, tolerance: float = 1e-4) -> None:
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x), rtol=tolerance, atol=tolerance)


def test_folding_and_equalizing_leave_what_has_a_forward_of_its_own_and_keep_the_function() -> None:
    model, x = used(Unusual()), images()
    assert graph_of(model).conv_bn == (("linear", "flat"),) and graph_of(model).chains == ()
    folded = fold(model)
    same(folded, model, x)
    assert "flat" not in dict(folded.named_modules()) and "act" in dict(folded.named_modules())
    equal = copy.deepcopy(model)
    equalize(equal)
    same(equal, model, x)


def test_a_layer_that_is_called_twice_has_no_batch_norm_folded_into_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.two(self.conv(self.one(self.conv(x))))
            return result

    model = used(Twice())
    folded = fold(model)
    same(folded, model, images())
    assert {"one", "two"} <= dict(folded.named_modules()).keys()


@pytest.mark.parametrize("folded", [False, True])
def test_a_layer_with_a_forward_of_its_own_is_quantized_by_it(folded: bool) -> None:
    """At 16 bits the network gives what it gives in float; a plain convolution in its place would not."""
    model, x = used(Unusual()), images()
    network = fold(model) if folded else model
    quantized = suite.quantize(network, calibrated_on(Mse(16, 16), 16, 8), x)
    same(quantized, model, x, 2e-2)
    held = {name for name, module in quantized.named_modules() if isinstance(module, Quantized)}
    assert {"pad", "std", "linear"} <= held and "unused" not in held
    mixed = calibrated_on(Mixed(Scheme(8, 8)), 16, 8)
    assert suite.quantize(model, mixed, x, torch.arange(16) % 10)(x).shape == (16, 10)


def test_a_layer_under_two_names_is_one_layer_with_one_quantizer() -> None:
    quantized = suite.quantize(used(Unusual()), calibrated_on(Mse(8, 8), 16, 8), images())
    assert quantized.again is quantized.std and isinstance(quantized.again, Quantized)


def test_a_batch_norm_of_any_dimensions_is_frozen_and_keeps_its_forward() -> None:
    model, x = used(Unusual()), images()
    frozen = freeze(copy.deepcopy(model)).train()
    same(frozen, model, x)
    assert not any(norm.training for norm in (frozen.act, frozen.norm, frozen.flat))
    copy.deepcopy(frozen)


def test_a_batch_norm_that_computes_more_is_refused_over_ranks() -> None:
    with pytest.raises(
        SuiteError, match=r"act is a NormAndSwish, .* train with Sgd\(sync_batch_norm=False\)"
    ):
        check_synchronizes(Unusual())
    check_synchronizes(nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm3d(3, affine=False)))


class Encoder(nn.Module):
    """Tokens of 8x8 pixels through one of torch's transformer layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = weight_norm(nn.Conv2d(3, 8, 8, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.layer(self.patch(x).flatten(2).transpose(1, 2)).mean(1))
        return result


def test_a_transformer_layer_is_quantized_inside_and_a_normed_weight_as_it_is() -> None:
    model, x = Encoder().eval(), images()
    assert "layer.self_attn.in_proj_weight" in left_in_float(model)
    for bits, tolerance in ((16, 2e-2), (8, 0.5)):
        quantized = suite.quantize(model, calibrated_on(Mse(bits, bits), 16, 8), x)
        same(quantized, model, x, tolerance)
    held = {name for name, module in quantized.named_modules() if isinstance(module, Quantized)}
    assert held == {"patch", "layer.linear1", "layer.linear2", "head"}
    assert isinstance(quantized.get_submodule("patch.layer").weight, nn.Parameter)
    model(x)  # whose weight is normed as before


FUNCTIONS = """
import torch
from torch import nn
from torch.nn import functional as F

class build(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.one, self.two = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(10, 4))

    def forward(self, x):
        return F.linear(F.relu(F.conv2d(x, self.one)).mean((2, 3)), self.two)
"""
DEPENDS = """
from torch import nn

class build(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.linear((x if x.mean() < 100 else x / 2).mean((2, 3)))
"""


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (FUNCTIONS, "mse", "the network calls no module of nn.Conv1d, .* keep its weights in such modules"),
        (FUNCTIONS, "k_sigma", "clips the weights of nn.Conv2d, and the network has none"),
        (FUNCTIONS, "builtin_int8", "torch.ao.quantization cannot make an int8 network of this one"),
        (DEPENDS, "adaround", "BatchNorm cannot be folded: torch.fx cannot trace the network"),
        (DEPENDS, "equalized", "layers cannot be equalized: torch.fx cannot trace the network"),
        (
            DEPENDS,
            "builtin_int8",
            "torch.ao.quantization cannot make .* control flow; leave builtin_int8 out",
        ),
    ],
)
def test_a_method_that_cannot_be_applied_to_a_network_is_refused_before_anything_runs(
    tmp_path: Any, text: str, name: str, words: str
) -> None:
    (tmp_path / "net.py").write_text(text)
    training = Training(
        Network(f"{tmp_path}/net.py:build", classes=10),
        Dataset("digits", size=8),
        Sgd(1, 32, 0.1, precision=Precision("O0")),
    )
    with pytest.raises(SuiteError, match=f"on net.py:build: .*{words}"):
        check_methods([Recipe(training, KINDS[name]())])


def test_methods_that_can_be_applied_are_not_refused(tmp_path: Any) -> None:
    (tmp_path / "net.py").write_text(DEPENDS)
    network, sgd = Network(f"{tmp_path}/net.py:build", classes=10), Sgd(1, 32, 0.1, precision=Precision("O0"))
    training = Training(network, Dataset("digits", size=8), sgd)
    check_methods([Recipe(training, Mse()), Recipe(training, KSigma())])
    plain = Training(Network("resnet20"), Dataset("digits"), sgd)
    check_methods([Recipe(plain, BuiltinInt8())])
    with pytest.raises(
        SuiteError, match="'conv7' is no quantized layer; the layers are conv1, layer1.0.conv1"
    ):
        check_methods([Recipe(plain, Scheme(by_layer=(("conv7", 4, 8),)))])
