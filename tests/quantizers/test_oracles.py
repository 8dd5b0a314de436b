"""Each method against an implementation that is not ours: the sources' own lines, NVIDIA's formula, torch.ao."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import suite
from suite.arithmetic.affine import Grid, fake_quantize
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.k_sigma import KSigma, clip_and_round
from suite.methods.linear import linear_quantize
from suite.quantizers.quantizer import Quantizer
from suite.ranges.observers import Dynamic, MovingMinMax
from suite.recipe import Calibration
from suite.steps import Uniform

SEEDS = st.integers(0, 2**31)
WIDTHS = st.integers(2, 16)


def weight(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 4, 3, 3, generator=generator) * 0.1


def source_000(input: Tensor, bits: int) -> Tensor:
    """linear_quantize as source 000 prints it."""
    range1 = input.max() - input.min()
    temp = (input - input.min()) / range1
    range2 = math.pow(2.0, bits) - 1
    min_v = -math.pow(2.0, bits - 1)
    ret = (temp.float() * range2) + min_v
    ret = ret.float()
    return ret


@given(SEEDS, WIDTHS)
def test_linear_equals_the_lines_of_source_000(seed: int, bits: int) -> None:
    w = weight(seed)
    assert torch.equal(linear_quantize(w, bits, rounding="none", map_back=False), source_000(w, bits))
    cast = source_000(w, bits).int().float()
    assert torch.equal(linear_quantize(w, bits, rounding="truncate", map_back=False), cast)


@given(SEEDS, WIDTHS)
def test_linear_mapped_back_is_within_a_step_of_the_weight(seed: int, bits: int) -> None:
    w = weight(seed)
    step = float(w.max() - w.min()) / (2**bits - 1)
    back = linear_quantize(w, bits, rounding="truncate", map_back=True)
    assert float((back - w).abs().max()) <= step * (1 + 1e-3) + 1e-6


def test_a_constant_tensor_goes_to_the_lowest_integer_and_back() -> None:
    w = torch.full((4, 4), 0.25)
    assert (linear_quantize(w, 8, rounding="truncate", map_back=False) == -128).all()
    assert torch.equal(linear_quantize(w, 8, rounding="truncate", map_back=True), w)


class Round(torch.autograd.Function):
    """Source 001's: rounds, and passes the gradient on as it is."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        return torch.round(input)

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> Tensor:
        return grad_output[0].clone()


class Source001(nn.Module):
    """Quantizer, range tracker and parameter update of source 001, as one; `update_params` from its public code."""

    def __init__(self, bits: int, symmetric: bool, channels: int | None, momentum: float = 0.1) -> None:
        super().__init__()
        self.symmetric, self.channels, self.momentum, self.first = symmetric, channels, momentum, True
        self.quant_min = -(1 << (bits - 1)) if symmetric else 0
        self.quant_max = (1 << (bits - 1)) - 1 if symmetric else (1 << bits) - 1

    def update_range(self, x: Tensor) -> None:
        if self.channels is not None:  # GlobalRangeTracker: what its aliased buffers really hold
            low, high = x.flatten(1).amin(1).view(-1, 1, 1, 1), x.flatten(1).amax(1).view(-1, 1, 1, 1)
            self.low = low if self.first else torch.minimum(torch.zeros_like(low), low)
            self.high = high if self.first else torch.maximum(torch.zeros_like(high), high)
        elif self.first:
            self.low, self.high = x.min(), x.max()
        else:
            self.low = self.low * (1 - self.momentum) + x.min() * self.momentum
            self.high = self.high * (1 - self.momentum) + x.max() * self.momentum
        self.first = False

    def forward(self, x: Tensor) -> Tensor:
        self.update_range(x.detach())
        if self.symmetric:
            scale = self.quant_max / torch.max(self.low.abs(), self.high.abs())
            zero = torch.zeros_like(scale)
        else:
            scale = (self.quant_max - self.quant_min) / (self.high - self.low)
            zero = torch.round(self.low * scale)
        return (torch.clamp(Round.apply(x * scale - zero), self.quant_min, self.quant_max) + zero) / scale  # type: ignore[no-untyped-call]


def close(ours: Tensor, theirs: Tensor, step: float) -> bool:
    """Equal but for products rounded in another order: a value on a tie may fall one step off, no more than a few."""
    gap = (ours - theirs).abs()
    few = int((gap > step / 100).sum()) <= max(1, gap.numel() // 200)
    return few and float(gap.max()) <= step * 1.001


@given(SEEDS, st.integers(4, 8), st.booleans())
def test_qat_activations_and_their_gradients_equal_the_lines_of_source_001(
    seed: int, bits: int, symmetric: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours = Quantizer(Grid(bits, signed=symmetric), MovingMinMax(0.1), "track", symmetric=symmetric).train()
    theirs = Source001(bits, symmetric, None)
    for _ in range(4):
        x, upstream = torch.randn(2, 2, 3, 8, 8, generator=generator)
        x.requires_grad_()
        mine, expected = ours(x), theirs(x)
        assert close(mine.detach(), expected.detach(), float(ours.scale))
        gradients = [torch.autograd.grad(y, x, upstream)[0] for y in (mine, expected)]
        differ = ~torch.isclose(*gradients, rtol=1e-5, atol=0)  # theirs goes through the scale and back
        assert int(differ.sum()) <= 1, "a value on a tie beside the end of the grid"


@given(SEEDS, st.integers(4, 8), st.booleans())
def test_qat_weights_equal_the_lines_of_source_001(seed: int, bits: int, symmetric: bool) -> None:
    ours = Quantizer(Grid(bits, signed=symmetric), Dynamic(axis=0), "dynamic", symmetric=symmetric, axis=0)
    theirs = Source001(bits, symmetric, 8)
    for k in range(3):
        w = weight(seed + k)
        mine = ours(w)
        assert close(mine, theirs(w), float(ours.scale.max()))


def source_003(w: Tensor, alpha: float, b: int) -> Tensor:
    """weight_quantization(b)(w, alpha) as source 003 prints it."""
    input_c = (w / alpha).clamp(min=-1, max=1)
    sign = input_c.sign()
    xdiv = input_c.abs().mul(2**b - 1)
    xhard = xdiv.round().div(2**b - 1)
    return xhard.mul(sign).mul(alpha)


@given(SEEDS, st.integers(2, 9))
def test_k_sigma_equals_the_lines_of_source_003_whose_bits_are_one_fewer(seed: int, bits: int) -> None:
    w = weight(seed)
    alpha = 3 * w.std(correction=0)
    ours = clip_and_round(w, alpha, bits)
    theirs = source_003(w, float(alpha), bits - 1)
    assert close(ours, theirs, float(alpha) / (2 ** (bits - 1) - 1))


def test_k_sigma_takes_its_alpha_from_the_first_convolution_unless_asked(network: nn.Module) -> None:
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    network.requires_grad_(False)
    for per_layer in (False, True):
        done = [
            m
            for m in suite.quantize(network, KSigma(5, per_layer=per_layer)).modules()
            if isinstance(m, nn.Conv2d)
        ]
        for before, after in zip(convs, done, strict=True):
            alpha = 3 * (before if per_layer else convs[0]).weight.std(correction=0)
            assert torch.allclose(after.weight.abs().max(), torch.minimum(alpha, after.weight.abs().max()))
            assert close(after.weight, source_003(before.weight, float(alpha), 4), float(alpha) / 15)


@given(SEEDS, WIDTHS, st.sampled_from([None, 0]))
def test_amax_equals_the_formula_of_source_004(seed: int, bits: int, axis: int | None) -> None:
    w = weight(seed)
    alpha = w.abs().amax() if axis is None else w.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
    bound = 2 ** (bits - 1) - 1
    theirs = alpha / bound * torch.round(bound / alpha * torch.clip(w, -alpha, alpha))
    ours = Quantizer(Grid(bits, narrow=True), Dynamic(axis), "dynamic", axis=axis)
    assert close(ours(w), theirs, float(alpha.max()) / bound)


def test_amax_on_a_grid_of_halves_is_exact() -> None:
    grid = Grid(3, narrow=True)  # -3..3
    scale, zero_point = grid.symmetric(torch.tensor(1.5))
    x = torch.tensor([-9.0, -1.5, -0.3, 0.0, 0.2, 0.3, 1.4, 9.0])
    expected = [-1.5, -1.5, -0.5, 0.0, 0.0, 0.5, 1.5, 1.5]
    assert fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max).tolist() == expected


def test_builtin_int8_equals_torch_ao_called_by_hand(network: nn.Module) -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.manual_seed(3)
    seen, x = torch.randn(64, 3, 32, 32), torch.randn(16, 3, 32, 32)
    method: Any = BuiltinInt8(feed=Calibration(images=64))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        ours = suite.quantize(network, method, [seen])(x)
        by_hand = prepare_fx(network, get_default_qconfig_mapping("x86"), (x,))
        by_hand(seen)
        torch.backends.quantized.engine = "x86"
        theirs = convert_fx(by_hand)(x)
    assert torch.equal(ours, theirs)


def test_builtin_int8_runs_integer_kernels_fused_with_relu(network: nn.Module) -> None:
    method = BuiltinInt8(feed=Calibration(images=8))
    model = suite.quantize(network, method, torch.randn(8, 3, 32, 32))
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds.count("ConvReLU2d") + kinds.count("Conv2d") >= 19
    assert "BatchNorm2d" not in kinds


def test_an_engine_that_this_torch_lacks_is_named(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"], raising=False)
    with pytest.raises(Exception, match="no int8 engine 'x86'"):
        suite.quantize(network, BuiltinInt8(), [])


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_weights_per_channel_equal_brevitas_and_so_do_gradients_but_at_each_channels_largest(
    bits: int,
) -> None:
    """There brevitas adds the gradient that the scale passes on; ours, as the sources', is taken as given."""
    layers = pytest.importorskip(
        "brevitas.nn", reason="brevitas is not installed (0.13.4 is the one compared with)"
    )
    from brevitas.quant import Int8WeightPerChannelFloat

    torch.manual_seed(bits)
    conv = layers.QuantConv2d(3, 16, 3, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=bits)
    theirs, w = conv.quant_weight(), conv.weight.detach().clone().requires_grad_()
    quantizer = Uniform(per="channel", updates="always").quantizer(bits)
    ours = quantizer(w)
    assert torch.equal(ours, theirs.value) and torch.equal(quantizer.scale, theirs.scale.flatten())
    upstream = torch.randn_like(ours)
    (expected,) = torch.autograd.grad(theirs.value, conv.weight, upstream)
    (found,) = torch.autograd.grad(ours, w, upstream)
    differ = ~torch.isclose(expected, found, rtol=1e-5, atol=1e-6).flatten(1)
    assert torch.equal(differ.int().argmax(1), w.abs().flatten(1).argmax(1)) and differ.sum() == 16
