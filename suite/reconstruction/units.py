"""A network in units that run one after the other: residual blocks and single layers, each from one tensor to one.

The units come from the traced graph: a tensor is a cut where nothing that came before it is used after it. Several
tensors that one module gives, such as attention, are none.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from suite.networks.graph import Tracer
from suite.quantizers.block_inputs import BlockInput
from suite.quantizers.layers import Quantized
from suite.recipe.errors import SuiteError, first_line

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    *(nn.modules.batchnorm._BatchNorm, nn.Identity, nn.Dropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardswish, nn.SiLU, nn.GELU),
)
"""What belongs to the layer before it: BatchNorm and activations."""

ELEMENTWISE_CALLS = {F.relu, F.relu6, F.hardswish, F.silu, F.gelu, torch.relu, "relu", "relu_"}


@dataclass(frozen=True)
class Unit:
    """`nodes` compute `output` from `input`; `layers` are the names of the quantized layers among them, and `rounded`
    of the quantizers that a block has for its layers and its shortcut together."""

    name: str
    layers: tuple[str, ...]
    input: fx.Node
    output: fx.Node
    nodes: tuple[fx.Node, ...]
    rounded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """What lies between two cuts, and the units in it: one where units are blocks, one a layer otherwise."""

    input: fx.Node
    output: fx.Node
    nodes: tuple[fx.Node, ...]
    units: tuple[Unit, ...]


def parts_of(model: nn.Module, unit: Literal["layer", "block", "network"]) -> tuple[Part, ...]:
    """The parts of a `model` with quantizers, in order; what follows the last layer is in none.

    A unit ends behind the BatchNorm and the activation that follow its last layer. Pooling, reshaping and the rounding
    of what a block gets belong to the unit behind them. With "block", what no cut divides is one unit: a residual
    block, and any other layer by itself. With "network" all is one unit, up to the last layer.
    Raises SuiteError where torch.fx cannot trace the model, and where no layer has a quantizer.
    """
    nodes = _traced(model)
    inputs = [node for node in nodes if node.op == "placeholder"]
    held = {node for node in nodes if isinstance(_module(model, node), Quantized)}
    layers = {node for node in held if not isinstance(_module(model, node), BlockInput)}
    if not layers:
        raise SuiteError("the network has no layer with quantizers; a reconstruction comes after Insert")
    if len(inputs) != 1:
        raise SuiteError(f"a reconstruction needs a network of one input; this one has {len(inputs)}")
    found: list[Part] = []
    waiting: list[fx.Node] = []
    start = inputs[0]
    for segment in _segments(nodes):
        if layers & set(segment):
            found.append(_part(model, start, [*waiting, *segment], unit, layers))
        elif found and not waiting and all(_is_elementwise(model, node) for node in segment):
            found[-1] = _part(model, found[-1].input, [*found[-1].nodes, *segment], unit, layers)
        else:
            waiting += segment
            continue
        start, waiting = segment[-1], []
    if unit == "network":
        return (_part(model, inputs[0], [node for part in found for node in part.nodes], unit, layers),)
    return tuple(found)


def check_apart(parts: Sequence[Part]) -> None:
    """Raise SuiteError for a layer of two units: what the second one learned would take the place of the first's."""
    owner: dict[str, str] = {}
    for unit in (unit for part in parts for unit in part.units):
        for name in unit.layers:
            if name in owner:
                raise SuiteError(
                    f"layer {name!r} is called more than once, in {owner[name]} and again in {unit.name}, so its "
                    f"rounding cannot be learned unit by unit; use unit='network', or a layer for each call"
                )
            owner[name] = unit.name


def check_divides(model: nn.Module) -> None:
    """Raise SuiteError where torch.fx cannot trace the model, so that its units are not known."""
    _traced(model)


def _traced(model: nn.Module) -> list[fx.Node]:
    try:
        return list(Tracer((Quantized,)).trace(model).nodes)
    except Exception as error:  # of whatever the network's forward does with a stand-in for its input
        raise SuiteError(
            f"torch.fx cannot trace the network ({first_line(error)}), so its blocks are not known; take a method "
            f"that needs no blocks, or rewrite the network's forward so that it does not depend on values"
        ) from None


def run(
    model: nn.Module, nodes: Sequence[fx.Node], values: Mapping[fx.Node, Tensor], wanted: fx.Node
) -> Tensor:
    """The value of `wanted` of `model`: the `nodes` are computed in order, from the `values` of others, up to it."""
    known = dict(values)
    if wanted in known:
        return known[wanted]
    for node in nodes:
        args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
        if node.op == "call_module":
            known[node] = model.get_submodule(str(node.target))(*args, **kwargs)
        elif node.op == "call_function":
            known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        elif node.op == "call_method":
            known[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            known[node] = operator.attrgetter(str(node.target))(model)
        if node is wanted:
            break
    return known[wanted]


def _module(model: nn.Module, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_elementwise(model: nn.Module, node: fx.Node) -> bool:
    return isinstance(_module(model, node), ELEMENTWISE) or node.target in ELEMENTWISE_CALLS


def _segments(nodes: list[fx.Node]) -> list[list[fx.Node]]:
    """The nodes behind the input, divided at every cut."""
    order = {node: number for number, node in enumerate(nodes)}
    last = {node: max((order[user] for user in node.users), default=-1) for node in nodes}
    segments: list[list[fx.Node]] = [[]]
    living: set[fx.Node] = set()
    for node in nodes:
        if node.op == "output":
            break
        living = {value for value in living if last[value] > order[node]} | {node}
        if node.op == "placeholder":
            continue
        segments[-1].append(node)
        if living == {node} and not _is_taken_apart(node):
            segments.append([])
    return [segment for segment in segments if segment]


def _is_taken_apart(node: fx.Node) -> bool:
    """Whether it gives a tuple, of which others take a part by its number."""
    return bool(node.users) and all(
        user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users
    )


def _part(
    model: nn.Module,
    start: fx.Node,
    nodes: list[fx.Node],
    unit: Literal["layer", "block", "network"],
    layers: set[fx.Node],
) -> Part:
    inside = [node for node in nodes if node in layers]
    if unit != "layer" or len(inside) == 1:
        names = tuple(dict.fromkeys(str(node.target) for node in inside))
        rounded = tuple(str(node.target) for node in nodes if isinstance(_module(model, node), BlockInput))
        units = [Unit(_common(names), names, start, nodes[-1], tuple(nodes), rounded)]
    else:
        units = [_layer_unit(model, node, nodes) for node in inside]
    return Part(start, nodes[-1], tuple(nodes), tuple(units))


def _layer_unit(model: nn.Module, layer: fx.Node, nodes: list[fx.Node]) -> Unit:
    own, now = [layer], layer
    while len(now.users) == 1:
        (following,) = now.users
        if following not in nodes or not _is_elementwise(model, following):
            break
        own.append(following)
        now = following
    name = str(layer.target)
    return Unit(name, (name,), layer.all_input_nodes[0], now, tuple(own))


def _common(names: tuple[str, ...]) -> str:
    """The module that holds all of these layers, by the dots of their names; "network" where none does."""
    if len(names) == 1:
        return names[0]
    together = []
    for step in zip(*(name.split(".") for name in names), strict=False):
        if len(set(step)) > 1:
            break
        together.append(step[0])
    return ".".join(together) or "network"
