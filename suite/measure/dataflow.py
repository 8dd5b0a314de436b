"""One layer's way through integers: the type, width, range and scale of each step, and one value carried through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from suite.arithmetic.integer import Multiplier, bits_needed
from suite.export import agreement
from suite.formats.rebuild import check_on_grids, rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.integers.integer_network import Codes, IntegerNetwork, Sums
from suite.integers.nodes import gives_shape, is_relu, moves_only
from suite.quantizers.layers import CONVOLUTIONS, Quantized, layer_of, no_layer
from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.record.files import Folders

IMAGES = 32
"""Test images that pass through the network; the example is of the first."""


@dataclass(frozen=True)
class Row:
    """A step. low and high are integers met, or real numbers where the type is float32; example is an integer, and
    real what it stands for."""

    step: str
    type: str
    bits: int
    low: float
    high: float
    scale: str
    example: float
    real: float


def dataflow(stage: Stage, layer: str, folders: Folders) -> list[Row]:
    """The steps of `layer` of a finished recipe, computed on test images: integers everywhere, BatchNorm
    folded. The example is the largest output of the first image and the first channel, and of its products that of the
    first input channel in the middle of the filter.

    Raises SuiteError as `export` does, and for a name that is no quantized layer's.
    """
    source = rebuilt(stage, folders)
    check_on_grids(source)
    network, _ = integer_everywhere(source.model, source.calibration())
    integers = IntegerNetwork(network, keeps=True)
    if layer not in integers.weights:
        raise no_layer(layer, integers.weights)
    test = source.images("test")
    x = next(agreement.batches(test, min(IMAGES, len(test))))
    integers(x)
    return _Way(integers, layer).rows()


class _Way:
    def __init__(self, integers: IntegerNetwork, name: str) -> None:
        self.integers, self.name = integers, name
        self.network = integers.network
        self.node = next(node for node in self.network.graph.nodes if str(node.target) == name)
        module = self.network.get_submodule(name)
        self.layer = layer_of(module)
        given = integers.values[self.node.all_input_nodes[0].name]
        if isinstance(module, Quantized) and module.input is not None:
            self.given, given = given, integers.on_grid(given, f"{name}.input")
        else:
            self.given = given
        if not isinstance(given, Codes):
            raise SuiteError(f"the input of layer {name} is on no grid; its recipe leaves it in float32")
        self.x = given
        self.weight = integers.weights[name]
        self.total, self.scale = integers.products(self.x, name, self.layer)
        sums = integers.values[self.node.name]
        assert isinstance(sums, Sums)
        self.at = _largest(sums.q)

    def rows(self) -> list[Row]:
        """All steps, in order."""
        rows = [*self._input(), *self._products()]
        sums = self.integers.values[self.node.name]
        assert isinstance(sums, Sums)
        if self.layer.bias is not None:
            bias = sums.q[self.at] - self.total[self.at]
            every = (sums.q - self.total)[0].reshape(sums.q.shape[1], -1)[:, 0]
            rows.append(self._row("bias", every, bias, "s_x*s_w"))
            rows.append(self._row("sum + bias", sums.q, sums.q[self.at], "s_x*s_w"))
        return rows + self._behind(sums)

    def _input(self) -> list[Row]:
        bits = self._input_bits()
        example, x = self._first(self.x.q), self.x
        real = float((example - x.zero_point) * x.scale)
        kind = f"{'int' if int(x.q.min()) < 0 else 'uint'}{bits}"
        found = []
        if isinstance(self.given, Tensor):
            value = float(self._first(self.given))
            found.append(Row("input", "float32", 32, *_ends(self.given), "", value, value))
        words = f"s_x = {float(x.scale):.6g}, zero point {x.zero_point}"
        return [*found, Row("input, rounded", kind, bits, *_ends(x.q), words, float(example), real)]

    def _input_bits(self) -> int:
        named = [f"{self.name}.input", str(self.node.all_input_nodes[0].target)]
        found = [self.integers.levels[one].bits for one in named if one in self.integers.levels]
        return found[0] if found else max(8, int(self.x.q.max()).bit_length())

    def _first(self, x: Tensor) -> Tensor:
        """The element of the first image that the middle of the first filter meets at the example's place."""
        if not isinstance(self.layer, CONVOLUTIONS):
            return x[0, 0]
        return x[(0, 0, *self._place(x))]

    def _place(self, x: Tensor) -> list[int]:
        layer: Any = self.layer
        place = []
        for dim, at in enumerate(self.at[2:]):
            padding = layer.padding[dim] if isinstance(layer.padding, tuple) else layer.kernel_size[dim] // 2
            middle = layer.kernel_size[dim] // 2
            inside = at * layer.stride[dim] - padding + middle * layer.dilation[dim]
            place.append(min(max(inside, 0), x.shape[2 + dim] - 1))
        return place

    def _products(self) -> list[Row]:
        weight, x = self.weight, self.x
        middle = (0, 0, *(size // 2 for size in weight.q.shape[2:]))
        tap = int(weight.q[middle])
        scale = float(weight.scale.reshape(-1)[0])
        words = f"s_w = {scale:.6g}" + (", one a channel" if weight.scale.dim() else "")
        value = (int(self._first(x.q)) - x.zero_point) * tap
        unit = float(self.scale.reshape(-1)[0])
        count = weight.q[0].numel()
        furthest = int(x.centred.abs().max()) * int(weight.q.abs().max())
        bits = bits_needed(furthest)
        return [
            Row("weight", f"int{weight.bits}", weight.bits, *_ends(weight.q), words, tap, tap * scale),
            Row("product", "int32", bits, -furthest, furthest, f"s_x*s_w = {unit:.6g}", value, value * unit),
            self._row(f"sum of {count} products", self.total, self.total[self.at], "s_x*s_w"),
        ]

    def _row(self, step: str, values: Tensor, example: Tensor, scale: str) -> Row:
        unit = float(self.scale.reshape(-1)[0])
        bits = bits_needed(int(values.abs().max()))
        return Row(step, "int32", bits, *_ends(values), scale, float(example), float(example) * unit)

    def _behind(self, sums: Sums) -> list[Row]:
        """ReLU and the next grid, or the logits."""
        found, value, following = list[Row](), sums, self._following(self.node)
        while following is not None:
            relu = is_relu(self.network, following)
            kept = self.integers.values[following.name]
            if not isinstance(kept, Sums) or not (relu or moves_only(self.network, following)):
                break
            value = kept
            if not relu:  # as pooling by the largest, behind which it has another place
                self.at = _largest(value.q)
            step = "ReLU: clamp at 0" if relu else str(following.target)
            found.append(self._row(step, value.q, value.q[self.at], "s_x*s_w"))
            following = self._following(following)
        quantizer = self._quantizer(following)
        unit = float(self.scale.reshape(-1)[0])
        if quantizer is None:
            real = float(value.q[self.at]) * unit
            return [*found, Row("times s_x*s_w", "float32", 32, *_ends(value.real), "1", real, real)]
        grid = self.integers.levels[quantizer]
        factors = Multiplier.of(value.scale.double() / grid.scale.double())
        mantissa, shift = (int(part.reshape(-1)[0]) for part in (factors.mantissa, factors.shift))
        words = f"* {mantissa} >> {shift} = {float(factors.value.reshape(-1)[0]):.6g}, of channel 0"
        moved = factors(value.q)
        bits = bits_needed(int(moved.abs().max()))
        example = float(moved[self.at])
        after = self.integers.on_grid(value, quantizer)
        s_y = f"s_y = {float(grid.scale):.6g}, zero point {grid.zero_point}"
        kind = f"{'int' if grid.quant_min < 0 else 'uint'}{grid.bits}"
        real = float((after.q[self.at] - grid.zero_point) * grid.scale)
        return [
            *found,
            Row(
                "multiplied, shifted",
                "int32",
                bits,
                *_ends(moved),
                words,
                example,
                example * float(grid.scale),
            ),
            Row("output, clamped", kind, grid.bits, *_ends(after.q), s_y, float(after.q[self.at]), real),
        ]

    def _following(self, node: fx.Node) -> fx.Node | None:
        users = [user for user in node.users if not gives_shape(user)]
        return users[0] if users and users[0].op != "output" else None

    def _quantizer(self, node: fx.Node | None) -> str | None:
        if node is None or node.op != "call_module":
            return None
        module: nn.Module = self.network.get_submodule(str(node.target))
        if isinstance(module, Quantized):
            return f"{node.target}.input" if module.input is not None else None
        return str(node.target) if str(node.target) in self.integers.levels else None


def _largest(q: Tensor) -> tuple[int, ...]:
    """Where the largest value of the first image and the first channel is."""
    shape, at = q.shape[2:], int(q[0, 0].argmax())
    place: list[int] = []
    for size in reversed(shape):
        place.insert(0, at % size)
        at //= size
    return (0, 0, *place)


def _ends(values: Tensor) -> tuple[float, float]:
    low, high = values.aminmax()
    return float(low), float(high)
