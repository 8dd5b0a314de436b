"""A quantized network computed in integers alone (source 002's paper, arXiv 1712.05877): the reference for kernels.

Operands are integers of the recipe's widths, products are summed in accumulators of 32 bits or fewer, biases are
integers at the product of the scales of input and weight, a fixed-point multiplier and a shift bring the sums to the
next grid, ReLU is a clamp of the sums, and the operands of an addition are rescaled first. Nothing but the image and
the logits is a real number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from suite.arithmetic import integer
from suite.arithmetic.affine import by_channel
from suite.arithmetic.integer import Accumulators
from suite.integers.levels import Integers, integers_of, levels_of
from suite.integers.nodes import called, gives_shape, is_addition, is_pool, is_relu, layer_at, moves_only
from suite.quantizers.layers import CONVOLUTIONS, Quantized, layer_of
from suite.quantizers.quantizer import Quantizer
from suite.recipe.errors import SuiteError

CONV = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


@dataclass(frozen=True)
class Codes:
    """A tensor on a grid: x ~ (q - zero_point) * scale. q int64, |q - zero_point| below 2^bits; scale float32 []."""

    q: Tensor
    scale: Tensor
    zero_point: int
    bits: int

    @property
    def centred(self) -> Tensor:
        """q - zero_point, int64."""
        return self.q - self.zero_point


@dataclass(frozen=True)
class Sums:
    """What accumulators hold: x ~ q * scale. q int64, scale float64, [] or one a channel."""

    q: Tensor
    scale: Tensor

    @property
    def real(self) -> Tensor:
        """float32."""
        return (self.q * by_channel(self.scale, self.q, 1)).float()


Value = Tensor | Codes | Sums
"""Of a tensor; nodes that give its shape have numbers."""


class IntegerNetwork(nn.Module):
    """`network`, as `integer_everywhere` leaves it, in integers. Images to logits, float32.

    sums: the accumulators; what overflowed is counted in them, by layer. After a call `values` has what each node of
    the graph gave, by its name, where `keeps`.

    Raises SuiteError, naming it, for a layer that is not in integers.
    """

    def __init__(
        self, network: fx.GraphModule, sums: Accumulators | None = None, keeps: bool = False
    ) -> None:
        super().__init__()
        self.network, self.sums, self.keeps = network, sums or Accumulators(), keeps
        self.values: dict[str, Value] = {}
        self.weights: dict[str, Integers] = {}
        self.levels = {
            name: levels_of(module)
            for name, module in network.named_modules()
            if isinstance(module, Quantizer)
        }
        for node in network.graph.nodes:
            if (layer := layer_at(self.network, node)) is not None:
                weight = integers_of(layer)
                if weight is None:
                    raise SuiteError(
                        f"layer {node.target} has float weights; nothing computes it in integers"
                    )
                self.weights[str(node.target)] = weight

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 [n, classes] of float32 [n, channels, height, width]."""
        known: dict[fx.Node, Value] = {}
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                known[node] = x
            elif node.op == "output":
                return self._answer(known[node.all_input_nodes[0]])
            else:
                known[node] = self._computed(node, known)
            if self.keeps:
                self.values[node.name] = known[node]
        raise SuiteError("the network has no output")

    def _answer(self, value: Value) -> Tensor:
        if isinstance(value, Codes):
            return value.centred * value.scale
        return value.real if isinstance(value, Sums) else value

    def _computed(self, node: fx.Node, known: dict[fx.Node, Value]) -> Value:
        if gives_shape(node):
            shape: Value = called(self.network, node, lambda one: _integers(known[one]))
            return shape
        given = [known[one] for one in node.all_input_nodes]
        module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Quantizer):
            return self.on_grid(given[0], str(node.target))
        if isinstance(module, Quantized) and module.input is not None:
            given = [self.on_grid(given[0], f"{node.target}.input")]
        if module is not None and str(node.target) in self.weights:
            layer = layer_at(self.network, node)
            assert layer is not None
            return self.multiplied(self._codes(given[0], node), str(node.target), layer)
        if is_addition(node):
            one, other = (self._codes(value, node) for value in given)
            widths = max(one.bits, other.bits), self.sums.bits
            total, scale = integer.rescaled_sum(one.centred, one.scale, other.centred, other.scale, *widths)
            return Sums(self.sums(total, node.name), scale)
        if is_relu(self.network, node) or (
            isinstance(module, Quantized) and isinstance(module.layer, nn.ReLU)
        ):
            return _relu(given[0], module)
        if is_pool(self.network, node):
            return self._pooled(self._codes(given[0], node), node, known)
        if moves_only(self.network, node):
            return self._moved(given[0], node, known)
        raise self._not_in_integers(node)

    def on_grid(self, value: Value, quantizer: str) -> Codes:
        """`value` on the grid of the quantizer of this name: a real image is rounded, integers are brought there."""
        grid = self.levels[quantizer]
        bits = (grid.quant_max - grid.quant_min).bit_length()
        if isinstance(value, Tensor):
            q = torch.round(value.double() / grid.scale.double()) + grid.zero_point
            return Codes(q.clamp(grid.quant_min, grid.quant_max).long(), grid.scale, grid.zero_point, bits)
        total = value.centred if isinstance(value, Codes) else value.q
        ends = grid.zero_point, grid.quant_min, grid.quant_max
        q = integer.requantized(total, value.scale, grid.scale, *ends)
        return Codes(q, grid.scale, grid.zero_point, bits)

    def multiplied(self, x: Codes, name: str, layer: nn.Module) -> Sums:
        """The sums of products of a layer, its bias added."""
        total, scale = self.products(x, name, layer)
        if layer.bias is not None:
            bias = integer.integer_bias(layer.bias.detach(), scale, name)  # type: ignore[operator]
            total = total + by_channel(bias, total, 1)
        return Sums(self.sums(total, name), scale)

    def products(self, x: Codes, name: str, layer: nn.Module) -> tuple[Tensor, Tensor]:
        """(sums of products int64, their scale float64 [] or one a channel) of a layer, without its bias."""
        weight = self.weights[name]
        scale = _with_room(x.scale.double() * weight.scale.double(), weight.q, layer.bias)
        a, b = x.centred.double(), weight.q.double()
        if isinstance(layer, CONVOLUTIONS):
            convolve: Callable[..., Tensor] = CONV[type(layer)]
            total = convolve(a, b, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        else:
            if a.dim() != 2:
                raise SuiteError(
                    f"layer {name} takes a tensor of {a.dim()} dimensions; the integer-only reference knows linear "
                    f"layers of one row of numbers an image"
                )
            total = F.linear(a, b)
        return total.long(), scale

    def _pooled(self, x: Codes, node: fx.Node, known: dict[fx.Node, Value]) -> Sums:
        """The mean of each window as its sum, at a scale divided by its size."""
        mean = self._called(node, x.centred.double(), known)
        size = x.q.shape[-1] * x.q.shape[-2] // (mean.shape[-1] * mean.shape[-2])
        total = torch.round(mean * size)
        if bool((total / size - mean).abs().max() > 1e-6):
            raise self._not_in_integers(node)
        return Sums(self.sums(total.long(), node.name), x.scale.double() / size)

    def _moved(self, value: Value, node: fx.Node, known: dict[fx.Node, Value]) -> Value:
        """A function that computes nothing, on integers whose zero is 0."""
        if isinstance(value, Codes):
            moved = self._called(node, value.centred.double(), known)
            return replace(value, q=moved.long() + value.zero_point)
        if isinstance(value, Sums):
            moved, scale = self._called(node, value.q.double(), known), value.scale
            if scale.dim():  # what was a channel may be several now, or elsewhere
                shaped = by_channel(scale, value.q, 1).expand(value.q.shape)
                of_one = self._called(node, shaped.contiguous(), known)[0]
                scale = of_one.reshape(len(of_one), -1)[:, 0]
            return Sums(moved.long(), scale)
        result: Tensor = self._called(node, value, known)
        return result

    def _called(self, node: fx.Node, x: Tensor, known: dict[fx.Node, Value]) -> Tensor:
        """What `node` gives of `x` in place of the tensor that it takes."""
        result: Tensor = called(
            self.network, node, lambda one: x if one is node.all_input_nodes[0] else known[one]
        )
        return result

    def _codes(self, value: Value, node: fx.Node) -> Codes:
        if isinstance(value, Codes):
            return value
        raise SuiteError(
            f"{node.target or node.name} takes a tensor that is on no grid; give every layer an input width of 16 "
            f"bits or fewer"
        )

    def _not_in_integers(self, node: fx.Node) -> SuiteError:
        return SuiteError(
            f"the network has {node.name} ({node.target}), which the integer-only reference does not know; it knows "
            f"convolutions, linear layers, ReLU, additions, average and max pooling, slices, padding and flattening"
        )


def _integers(value: Any) -> Any:
    """The tensor of a value, whose shape it has; a number is itself."""
    return value.q if isinstance(value, Codes | Sums) else value


def _relu(value: Value, module: nn.Module | None) -> Value:
    held = layer_of(module)
    six = 6.0 if isinstance(held, nn.ReLU6) else None
    if isinstance(value, Codes):
        top = None if six is None else round(six / float(value.scale)) + value.zero_point
        return replace(value, q=value.q.clamp(min=value.zero_point, max=top))
    if isinstance(value, Sums):
        q = value.q.clamp_min(0)
        if six is not None:
            ends = torch.round(six / value.scale).long()
            q = torch.minimum(q, by_channel(ends, q, 1))
        return replace(value, q=q)
    return value.clamp(min=0, max=six)


def _with_room(scale: Tensor, q: Tensor, bias: Any) -> Tensor:
    """`scale`, but for channels without a weight other than zero, which have the scale that their bias needs."""
    if bias is None or not scale.dim():
        return scale
    empty = (q.reshape(len(q), -1) == 0).all(1)
    needed = bias.detach().abs().double().clamp_min(torch.finfo(torch.float32).tiny) / 2**20
    return torch.where(empty, needed, scale)
