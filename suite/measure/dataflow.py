"""One layer's way through integers: the type, width, range and scale of each step, and one value carried through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from suite.arithmetic.affine import by_channel
from suite.arithmetic.integer import Accumulators, Multiplier, bits_needed, integer_bias
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
"""Test images that pass through the network."""
WIDTHS = (32, 16)
"""Bits of accumulators whose overflows are counted."""


@dataclass(frozen=True)
class Example:
    """Which value is carried through. image: one of the first IMAGES test images. output, input: channels of the
    layer, or features; of a group of channels the number within the group. place: row and column of the output, None
    for those of its largest value."""

    image: int = 0
    output: int = 0
    input: int = 0
    place: tuple[int, ...] | None = None


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


@dataclass(frozen=True)
class Flow:
    """A layer's steps; how many `sums` of products, bias added, it has, and by the bits of an accumulator how many of
    them overflow it."""

    rows: list[Row]
    sums: int
    overflows: dict[int, int]


def dataflow(stage: Stage, layer: str, folders: Folders, example: Example | None = None) -> Flow:
    """The steps of `layer` of a finished recipe, computed on test images: integers everywhere, BatchNorm
    folded. Of the example's products one is shown, that in the middle of the filter.

    Raises SuiteError as `export` does, for a name that is no quantized layer's, and for an example that is not there.
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
    way = _Way(integers, layer, example or Example())
    return Flow(way.rows(), way.whole.numel(), way.overflows())


class _Way:
    def __init__(self, integers: IntegerNetwork, name: str, example: Example) -> None:
        self.integers, self.name, self.example = integers, name, example
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
        bias = self.layer.bias
        self.whole = self.total
        if bias is not None:
            whole = integer_bias(bias.detach(), self.scale, name)  # type: ignore[operator]
            self.whole = self.total + by_channel(whole, self.total, 1)
        self.at = self._chosen(sums.q)

    def _chosen(self, q: Tensor) -> tuple[int, ...]:
        one, inputs = self.example, self.weight.q.shape[1]
        for what, number, count in (
            ("image", one.image, len(q)),
            ("output channel", one.output, q.shape[1]),
            ("input channel", one.input, inputs),
        ):
            if not 0 <= number < count:
                raise SuiteError(f"layer {self.name} has {what}s 0 to {count - 1}, got {number}")
        if one.place is None:
            return _largest(q, one.image, one.output)
        sizes = tuple(q.shape[2:])
        inside = len(one.place) == len(sizes) and all(
            0 <= at < size for at, size in zip(one.place, sizes, strict=True)
        )
        if not inside:
            words = "x".join(map(str, sizes)) or "one value a channel"
            raise SuiteError(f"the output of layer {self.name} is {words}; {one.place} is no place in it")
        return (one.image, one.output, *one.place)

    def overflows(self) -> dict[int, int]:
        """By the bits of an accumulator, how many sums do not fit into it."""
        found = {}
        for bits in WIDTHS:
            sums = Accumulators(bits)
            sums(self.whole, self.name)
            found[bits] = sums.overflows[self.name]
        return found

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
        example, x = self._met(self.x.q), self.x
        real = float((example - x.zero_point) * x.scale)
        kind = f"{'int' if int(x.q.min()) < 0 else 'uint'}{bits}"
        found = []
        if isinstance(self.given, Tensor):
            value = float(self._met(self.given))
            found.append(Row("input", "float32", 32, *_ends(self.given), "", value, value))
        words = f"s_x = {float(x.scale):.6g}, zero point {x.zero_point}"
        return [*found, Row("input, rounded", kind, bits, *_ends(x.q), words, float(example), real)]

    def _input_bits(self) -> int:
        named = [f"{self.name}.input", str(self.node.all_input_nodes[0].target)]
        found = [self.integers.levels[one].bits for one in named if one in self.integers.levels]
        return found[0] if found else max(8, int(self.x.q.max()).bit_length())

    def _met(self, x: Tensor) -> Tensor:
        """The element of `x` that the middle of the example's filter meets at the example's place."""
        image, channel = self.example.image, self.example.input
        if not isinstance(self.layer, CONVOLUTIONS):
            return x[image, channel]
        groups = int(self.layer.groups)
        channel += self.example.output // (len(self.weight.q) // groups) * self.weight.q.shape[1]
        return x[(image, channel, *self._place(x))]

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
        middle = (self.example.output, self.example.input, *(size // 2 for size in weight.q.shape[2:]))
        tap = int(weight.q[middle])
        scale = _of_channel(weight.scale, self.example.output)
        words = f"s_w = {scale:.6g}" + (", one a channel" if weight.scale.dim() else "")
        value = (int(self._met(x.q)) - x.zero_point) * tap
        unit = _of_channel(self.scale, self.example.output)
        count = weight.q[0].numel()
        furthest = int(x.centred.abs().max()) * int(weight.q.abs().max())
        bits = bits_needed(furthest)
        return [
            Row("weight", f"int{weight.bits}", weight.bits, *_ends(weight.q), words, tap, tap * scale),
            Row("product", "int32", bits, -furthest, furthest, f"s_x*s_w = {unit:.6g}", value, value * unit),
            self._row(f"sum of {count} products", self.total, self.total[self.at], "s_x*s_w"),
        ]

    def _row(self, step: str, values: Tensor, example: Tensor, scale: str) -> Row:
        unit = _of_channel(self.scale, self.example.output)
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
                channel = self.example.output * value.q.shape[1] // sums.q.shape[1]
                self.at = _largest(value.q, self.example.image, channel)
            step = "ReLU: clamp at 0" if relu else str(following.target)
            found.append(self._row(step, value.q, value.q[self.at], "s_x*s_w"))
            following = self._following(following)
        quantizer = self._quantizer(following)
        unit = _of_channel(self.scale, self.example.output)
        if quantizer is None:
            real = float(value.q[self.at]) * unit
            return [*found, Row("times s_x*s_w", "float32", 32, *_ends(value.real), "1", real, real)]
        grid = self.integers.levels[quantizer]
        factors = Multiplier.of(value.scale.double() / grid.scale.double())
        channel = self.at[1]
        mantissa, shift = (int(_of_channel(one, channel)) for one in (factors.mantissa, factors.shift))
        words = f"* {mantissa} >> {shift} = {_of_channel(factors.value, channel):.6g}, of channel {channel}"
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


def _of_channel(values: Tensor, channel: int) -> float:
    """Of values of one number, or one a channel."""
    return float(values.reshape(-1)[channel if values.dim() else 0])


def _largest(q: Tensor, image: int, channel: int) -> tuple[int, ...]:
    """Where the largest value of an image and a channel is."""
    shape, at = q.shape[2:], int(q[image, channel].argmax())
    place: list[int] = []
    for size in reversed(shape):
        place.insert(0, at % size)
        at //= size
    return (image, channel, *place)


def _ends(values: Tensor) -> tuple[float, float]:
    low, high = values.aminmax()
    return float(low), float(high)
