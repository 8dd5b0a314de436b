"""What the nodes of a traced network do: multiply, add, pool, clamp at zero, only move values, or give a shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from suite.networks.graph import ADD
from suite.quantizers.layers import LAYERS, Quantized, layer_of

SHAPES = {"size", "dim"}
"""Methods of a tensor that give numbers of its shape; so do its attributes `shape` and `ndim`."""
POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
POOL_CALLS = {F.avg_pool2d, F.adaptive_avg_pool2d}
RELUS = (nn.ReLU, nn.ReLU6)
RELU_CALLS = {F.relu, torch.relu, torch.relu_, "relu", "relu_"}


def layer_at(network: nn.Module, node: fx.Node) -> nn.Module | None:
    """The convolution or linear layer that `node` calls, None where it calls none."""
    held = layer_of(network.get_submodule(str(node.target))) if node.op == "call_module" else None
    return held if isinstance(held, LAYERS) else None


def is_addition(node: fx.Node) -> bool:
    """Of two tensors."""
    adds = node.op in ("call_function", "call_method") and node.target in ADD
    return adds and len(node.all_input_nodes) == 2 and not gives_shape(node)


def gives_shape(node: fx.Node) -> bool:
    """Whether what it gives are numbers of a tensor's shape, and not of its values, as `x.size(0)` does."""
    if node.op == "call_method" and node.target in SHAPES:
        return True
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    computes = getattr(node.target, "__module__", "") in ("_operator", "builtins")
    return computes and bool(node.all_input_nodes) and all(map(gives_shape, node.all_input_nodes))


def called(network: nn.Module, node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
    """What a function, a method or a module that `node` calls gives, for the values of the nodes that it takes."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
    if node.op == "call_module":
        return layer_of(network.get_submodule(str(node.target)))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def is_pool(network: nn.Module, node: fx.Node) -> bool:
    """Average pooling."""
    if node.op == "call_module":
        held = network.get_submodule(str(node.target))
        return isinstance(held.layer if isinstance(held, Quantized) else held, POOLS)
    return node.op == "call_function" and node.target in POOL_CALLS


def is_relu(network: nn.Module, node: fx.Node) -> bool:
    """ReLU or ReLU6, a module or a call."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), RELUS)
    return node.op in ("call_function", "call_method") and node.target in RELU_CALLS


def moves_only(network: nn.Module, node: fx.Node) -> bool:
    """Whether each value it gives is one that it takes, or the zero of padding: its grid is the same."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.MaxPool2d))
    calls = {torch.flatten, F.pad, F.dropout, F.max_pool2d, "flatten", "contiguous", "view", "reshape"}
    name = getattr(node.target, "__name__", "")
    return node.op != "placeholder" and (node.target in calls or name == "getitem") and not gives_shape(node)


def with_pooling_modules(network: fx.GraphModule) -> fx.GraphModule:
    """`network` itself, each mean over the last two dimensions, and each call that pools all of them, as the module
    nn.AdaptiveAvgPool2d, which every format takes for average pooling."""
    for node in list(network.graph.nodes):
        kept = _pools_all(node)
        if kept is None:
            continue
        name = f"average_pool_{node.name}"
        network.add_submodule(name, nn.AdaptiveAvgPool2d(1))
        with network.graph.inserting_before(node):
            made = network.graph.call_module(name, (node.all_input_nodes[0],))
            if not kept:
                made = network.graph.call_function(torch.flatten, (made, -3))
        node.replace_all_uses_with(made)
        network.graph.erase_node(node)
    network.recompile()
    return network


def _pools_all(node: fx.Node) -> bool | None:
    """Whether a node that gives the mean over the last two dimensions keeps them; None for any other node."""
    if node.op not in ("call_function", "call_method") or len(node.all_input_nodes) != 1:
        return None
    given = dict(zip(("input", "dim", "keepdim"), node.args, strict=False)) | node.kwargs
    if node.target is F.adaptive_avg_pool2d:
        size = node.kwargs.get("output_size", node.args[-1] if len(node.args) > 1 else None)
        return True if size in (1, (1, 1), [1, 1]) else None
    dims = given.get("dim")
    if node.target not in ("mean", torch.mean) or not isinstance(dims, list | tuple) or len(dims) != 2:
        return None
    if given.get("dtype") is not None or {dim % 4 for dim in dims if isinstance(dim, int)} != {2, 3}:
        return None
    return bool(given.get("keepdim", False))
