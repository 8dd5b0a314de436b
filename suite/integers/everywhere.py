"""Quantizers at the ends of residual additions and of pooling, so that a network can compute in integers alone.

Papers and most recipes round what layers multiply and nothing else. A kernel of integers needs a grid for every
tensor: for both operands of an addition, its sum, and what is pooled; BatchNorm folded, and whole biases. A tensor
that only layers with one common grid of 8 bits take gets that grid; any other gets 8 bits, its own, from the extremes
on the calibration images.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator

import torch
from torch import Tensor, fx, nn

from suite.arithmetic.affine import Grid, by_channel
from suite.integers.levels import Integers, Levels, NoGridError, integers_of, levels_of
from suite.integers.nodes import is_addition, is_pool, is_relu, moves_only, with_pooling_modules
from suite.networks.graph import BATCH_NORM, Tracer
from suite.quantizers.layers import LAYERS, Quantized, layer_of, note_scale
from suite.quantizers.quantizer import Quantizer
from suite.ranges.observers import MinMax
from suite.recipe.errors import SuiteError, in_a_line

BITS = 8


def traced(model: nn.Module) -> fx.GraphModule:
    """A copy of `model` as a graph. Raises SuiteError where torch.fx cannot trace it."""
    model = copy.deepcopy(model).eval()
    try:
        return fx.GraphModule(model, Tracer((Quantized, Quantizer)).trace(model))
    except Exception as error:  # of whatever the network's forward does with a stand-in for its input
        raise SuiteError(
            f"torch.fx cannot trace the network ({in_a_line(error)}); rewrite its forward so that it does not depend "
            f"on values, or export it without --integer-everywhere"
        ) from error


def integer_everywhere(model: nn.Module, batches: Iterable[Tensor]) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """A copy of `model`, evaluating, BatchNorm folded and biases rounded, with quantizers after every tensor that an
    addition or a pooling takes or gives, and the names of these quantizers. `batches` give the ranges of those that no
    layer has a grid for.

    Raises SuiteError where the network cannot be traced.
    """
    network = fold_batch_norm(with_pooling_modules(traced(model)))
    points = list(dict.fromkeys(_points(network)))
    added = []
    for number, node in enumerate(points):
        name = f"joint{number}"
        quantizer = _shared(network, node) or _own()
        network.add_submodule(name, quantizer)
        with network.graph.inserting_after(node):
            made = network.graph.call_module(name, (node,))
        node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)  # type: ignore[misc]
        added.append(name)
    network.recompile()
    if any(network.get_submodule(name).mode == "observe" for name in added):
        with torch.no_grad():
            for x in batches:
                network(x)
    for name in added:
        quantizer = network.get_submodule(name)  # type: ignore[assignment]
        assert isinstance(quantizer, Quantizer)
        quantizer.freeze()
    return round_biases(network).eval(), tuple(added)


def fold_batch_norm(network: fx.GraphModule) -> fx.GraphModule:
    """`network` itself, each BatchNorm behind a rounded layer folded into the scales of that layer's weight, a channel
    each, and into its bias. The integers stay, but for their sign where BatchNorm's weight is negative."""
    for node in list(network.graph.nodes):
        batch_norm = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        given = node.all_input_nodes[0] if node.all_input_nodes else None
        if not isinstance(batch_norm, BATCH_NORM) or given is None or given.op != "call_module":
            continue
        held = network.get_submodule(str(given.target))
        layer = held.layer if isinstance(held, Quantized) else held
        if len(given.users) > 1 or not isinstance(layer, LAYERS) or batch_norm.running_var is None:
            continue
        if (weight := integers_of(layer)) is None:
            continue
        _scale_channels(layer, weight, batch_norm)
        node.replace_all_uses_with(given)
        network.graph.erase_node(node)
    network.recompile()
    return network


@torch.no_grad()
def _scale_channels(layer: nn.Module, weight: Integers, batch_norm: nn.Module) -> None:
    mean, var = batch_norm.running_mean, batch_norm.running_var
    assert isinstance(mean, Tensor) and isinstance(var, Tensor)
    gamma = batch_norm.weight if batch_norm.weight is not None else torch.ones_like(mean)
    beta = batch_norm.bias if batch_norm.bias is not None else torch.zeros_like(mean)
    bias = layer.bias if layer.bias is not None else torch.zeros_like(mean)
    assert isinstance(gamma, Tensor) and isinstance(bias, Tensor)
    factor = (gamma / (var + float(batch_norm.eps)).sqrt()).detach()  # type: ignore[arg-type]
    q = weight.q * by_channel(factor.sign().to(torch.int32), weight.q, 0)
    scale = torch.where(factor == 0, 1.0, factor.abs() * weight.scale)
    folded = Integers(q, scale, weight.bits)
    layer.weight = nn.Parameter(folded.value, requires_grad=False)
    layer.bias = nn.Parameter((bias - mean) * factor + beta, requires_grad=False)
    note_scale(layer, scale)


@torch.no_grad()
def round_biases(network: fx.GraphModule, only: Collection[str] | None = None) -> fx.GraphModule:
    """`network` itself, the bias of each layer with rounded weights and inputs, or of those named in `only`, a whole
    multiple of the product of their scales, as integer kernels take it."""
    for node in network.graph.nodes:
        if only is not None and str(node.target) not in only:
            continue
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        layer = layer_of(module)
        if not isinstance(layer, LAYERS) or layer.bias is None or (weight := integers_of(layer)) is None:
            continue
        quantizer = module.input if isinstance(module, Quantized) else None
        if quantizer is None:
            source = _source(network, node.all_input_nodes[0])
            found = network.get_submodule(str(source.target)) if source.op == "call_module" else None
            quantizer = found if isinstance(found, Quantizer) else None
        if quantizer is not None:
            bias = layer.bias
            assert isinstance(bias, Tensor)
            empty = (weight.q.reshape(len(weight.q), -1) == 0).all(1)  # their scale says nothing
            unit = levels_of(quantizer).scale * weight.scale
            bias.copy_(torch.where(empty, bias, torch.round(bias / unit) * unit))
    return network


def _points(network: fx.GraphModule) -> Iterator[fx.Node]:
    for node in network.graph.nodes:
        if is_addition(node):
            for given in node.all_input_nodes:
                yield _source(network, given)
            yield _end(network, node)
        elif is_pool(network, node):
            yield _source(network, node.all_input_nodes[0])


def _source(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    while moves_only(network, node):
        node = node.all_input_nodes[0]
    return node


def _end(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    while len(node.users) == 1:
        following = next(iter(node.users))
        batch_norm = following.op == "call_module" and isinstance(
            network.get_submodule(str(following.target)), BATCH_NORM
        )
        if not (batch_norm or is_relu(network, following)):
            break
        node = following
    return node


def _shared(network: fx.GraphModule, node: fx.Node) -> Quantizer | None:
    """A quantizer with the grid of the layers that take what `node` gives, which have none of their own any more."""
    takers, found = _takers(network, node), list[Levels]()
    for taker in takers:
        assert taker.input is not None
        try:
            found.append(levels_of(taker.input))
        except NoGridError:
            return None
    if not found or found[0].bits != BITS or any(_ends(one) != _ends(found[0]) for one in found):
        return None
    for taker in takers:
        taker.input = None
    one = found[0]
    grid = Grid(one.bits, signed=one.quant_min < 0, narrow=one.quant_min == 1 - 2 ** (one.bits - 1))
    made = Quantizer(grid, MinMax(), "frozen", symmetric=one.zero_point == 0)
    made.scale, made.zero_point = one.scale.clone(), torch.tensor(float(one.zero_point))
    made.observer = None
    return made


def _ends(levels: Levels) -> tuple[float, int, int, int]:
    return float(levels.scale), levels.zero_point, levels.quant_min, levels.quant_max


def _takers(network: fx.GraphModule, node: fx.Node) -> list[Quantized]:
    """The layers with a quantizer of their input that take what `node` gives, moved or as it is."""
    found: list[Quantized] = []
    for user in node.users:
        module = network.get_submodule(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, Quantized):
            found += [module] if module.input is not None else []
        elif moves_only(network, user):
            found += _takers(network, user)
    return found


def _own() -> Quantizer:
    return Quantizer(Grid(BITS, signed=False), MinMax(), "observe", symmetric=False)
