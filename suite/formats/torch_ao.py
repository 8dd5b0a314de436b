"""A network of integers everywhere on PyTorch's own quantized operators, those of torch.ao, while PyTorch has them.

A convolution or an addition waits until its grid is known, then computes at that scale and zero point; ReLU is fused
into it, and what only moves values is done behind it. Sums are of int8 weights and uint8 inputs; means of pooling
are of float32.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from suite.formats.onnx_graph import stored
from suite.integers.levels import integers_of, levels_of
from suite.integers.nodes import called, gives_shape, is_addition, is_pool, is_relu, layer_at, moves_only
from suite.quantizers.layers import Quantized, layer_of
from suite.quantizers.quantizer import Quantizer
from suite.recipe.errors import SuiteError


def why_not() -> str:
    """Why this PyTorch cannot compute so; empty where it can."""
    if set(torch.backends.quantized.supported_engines) <= {"none"}:
        return "this PyTorch has no quantized operators; use another runtime"
    return ""


@dataclass(frozen=True)
class Waiting:
    """What is computed once its grid is known. at: of (scale, zero point, whether ReLU follows) the quint8 tensor;
    real: the same in float32; then: what is done with the result."""

    at: Callable[[float, int, bool], Tensor]
    real: Callable[[], Tensor]
    relu: bool = False
    then: tuple[Callable[[Tensor], Tensor], ...] = ()

    def on(self, scale: float, zero_point: int) -> Tensor:
        """The quint8 tensor."""
        return self._moved(self.at(scale, zero_point, self.relu))

    def float(self) -> Tensor:
        """float32, of the last layer, whose logits are on no grid."""
        value = self.real()
        return self._moved(F.relu(value) if self.relu else value)

    def _moved(self, value: Tensor) -> Tensor:
        for move in self.then:
            value = move(value)
        return value


Value = Tensor | Waiting


class QuantizedOperators(nn.Module):
    """`network`, as `integer_everywhere` leaves it. Images to logits, float32. `kernels` counts its operators.

    Raises SuiteError, naming it, for a layer or a function that they do not compute.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__()
        self.network = network
        modules = dict(network.named_modules())
        self.levels = {name: levels_of(one) for name, one in modules.items() if isinstance(one, Quantizer)}
        self.packed: dict[str, Any] = {}
        self.kernels: Counter[str] = Counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of quantized tensors, which a later PyTorch will not have
            for node in network.graph.nodes:
                if (layer := layer_at(self.network, node)) is not None:
                    self.packed[str(node.target)] = _packed(layer, str(node.target))
                    self.kernels[f"quantized {type(layer).__name__}"] += 1
                elif is_addition(node):
                    self.kernels["quantized add"] += 1
        self._nodes_of_shapes = any(map(gives_shape, network.graph.nodes))
        self._known_sizes: dict[tuple[int, ...], dict[fx.Node, Any]] = {}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 [n, classes] of float32 [n, channels, height, width]."""
        known: dict[fx.Node, Value] = dict(self._sizes(x))
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                known[node] = x
            elif node.op == "output":
                value = known[node.all_input_nodes[0]]
                return value.float() if isinstance(value, Waiting) else _real(value)
            elif node not in known:
                known[node] = self._computed(node, known)
        raise SuiteError("the network has no output")

    def _sizes(self, x: Tensor) -> dict[fx.Node, Any]:
        """What the nodes that give shapes give for images of the shape of `x`: what is computed only once its grid is
        known has no shape before. Found by the network in float32, once for each shape."""
        if self._nodes_of_shapes and tuple(x.shape) not in self._known_sizes:
            made = _Sizes(self.network)
            made.run(x)
            self._known_sizes[tuple(x.shape)] = made.found
        return self._known_sizes.get(tuple(x.shape), {})

    def _computed(self, node: fx.Node, known: dict[fx.Node, Value]) -> Value:
        given = [known[one] for one in node.all_input_nodes]
        module = self.network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Quantizer):
            return self._on_grid(given[0], str(node.target))
        if isinstance(module, Quantized) and module.input is not None:
            given = [self._on_grid(given[0], f"{node.target}.input")]
        if str(node.target) in self.packed:
            layer = layer_at(self.network, node)
            assert layer is not None
            return _multiplied(_codes(given[0], node), layer, self.packed[str(node.target)])
        if is_addition(node):
            return _added(*(_codes(one, node) for one in given))
        if (
            is_relu(self.network, node)
            and isinstance(given[0], Waiting)
            and not given[0].then
            and not _six(module)
        ):
            return replace(given[0], relu=True)
        if is_pool(self.network, node):  # on quint8 it would round its mean to the scale of what it takes
            return self._moved(_codes(given[0], node).dequantize(), node, known)
        if is_relu(self.network, node) or moves_only(self.network, node):
            return self._moved(given[0], node, known)
        raise SuiteError(f"torch.ao does not compute {node.name} ({node.target}); use another runtime")

    def _on_grid(self, value: Value, quantizer: str) -> Tensor:
        """`value` as quint8 on the grid of the quantizer of this name; a signed one is moved up by half."""
        grid = self.levels[quantizer]
        scale, moved = float(grid.scale), 128 if grid.quant_min < 0 else 0
        zero_point = grid.zero_point + moved
        if grid.quant_min + moved < 0 or grid.quant_max + moved > 255:
            raise SuiteError(f"{quantizer} has more than 8 bits; torch.ao takes 8 at most")
        if isinstance(value, Waiting):
            found = value.on(scale, zero_point)
        else:
            found = torch.quantize_per_tensor(_real(value), scale, zero_point, torch.quint8)
        fills = grid.quant_min + moved == 0 and grid.quant_max + moved == 255
        return found if fills else torch.clamp(found, *grid.limits)

    def _moved(self, value: Value, node: fx.Node, known: dict[fx.Node, Value]) -> Value:
        def move(x: Tensor) -> Tensor:
            def value_of(one: fx.Node) -> Any:
                return x if one is node.all_input_nodes[0] else known[one]

            result: Tensor = called(self.network, node, value_of)
            return result

        return replace(value, then=(*value.then, move)) if isinstance(value, Waiting) else move(value)


class _Sizes(fx.Interpreter):
    """Keeps what the nodes that give shapes give."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """As it is, and kept."""
        result = super().run_node(n)
        if gives_shape(n):
            self.found[n] = result
        return result


def _real(value: Tensor) -> Tensor:
    return value.dequantize() if value.is_quantized else value


def _codes(value: Value, node: fx.Node) -> Tensor:
    if isinstance(value, Tensor) and value.is_quantized:
        return value
    raise SuiteError(
        f"{node.target} takes a tensor that is on no grid; give every layer an input width of 8 bits"
    )


def _six(module: nn.Module | None) -> bool:
    held = layer_of(module)
    return isinstance(held, nn.ReLU6)


def _packed(layer: Any, name: str) -> Any:
    """The weight and bias as the operators take them. Raises SuiteError for what they do not take."""
    weight = integers_of(layer)
    q, zero = stored(weight) if weight is not None else (None, None)
    kinds = (nn.Conv2d, nn.Linear)
    if (
        weight is None
        or q is None
        or zero is None
        or q.dtype != torch.int8
        or bool(zero.any())
        or type(layer) not in kinds
    ):
        raise SuiteError(
            f"torch.ao takes 2D convolutions and linear layers with weights of 8 bits without a zero point, and "
            f"layer {name} is none; use another runtime"
        )
    scales = weight.scale.reshape(-1).expand(len(q)).double()
    held = torch._make_per_channel_quantized_tensor(q, scales, torch.zeros(len(q), dtype=torch.long), 0)
    bias = None if layer.bias is None else layer.bias.detach()
    if isinstance(layer, nn.Linear):
        return torch.ops.quantized.linear_prepack(held, bias)
    padding = layer.padding if isinstance(layer.padding, tuple) else None
    if padding is None or layer.padding_mode != "zeros":
        raise SuiteError(
            f"torch.ao takes no padding {layer.padding!r} as layer {name} has; use another runtime"
        )
    how = [*layer.stride], [*padding], [*layer.dilation], layer.groups
    return torch.ops.quantized.conv2d_prepack(held, bias, *how)


def _multiplied(x: Tensor, layer: Any, packed: Any) -> Waiting:
    ops = torch.ops.quantized
    plain, fused = (
        (ops.linear, ops.linear_relu) if isinstance(layer, nn.Linear) else (ops.conv2d, ops.conv2d_relu)
    )

    def at(scale: float, zero_point: int, relu: bool) -> Tensor:
        result: Tensor = (fused if relu else plain)(x, packed, scale, zero_point)
        return result

    return Waiting(at, lambda: layer(x.dequantize()))


def _added(one: Tensor, other: Tensor) -> Waiting:
    def at(scale: float, zero_point: int, relu: bool) -> Tensor:
        add = torch.ops.quantized.add_relu if relu else torch.ops.quantized.add
        result: Tensor = add(one, other, scale, zero_point)
        return result

    return Waiting(at, lambda: one.dequantize() + other.dequantize())
