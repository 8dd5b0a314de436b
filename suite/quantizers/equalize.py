"""Cross-layer equalization (DFQ, Nagel et al. 2019, arXiv 1906.04721, section 4.1).

A channel between two layers is divided by s before a ReLU and multiplied by s behind it: the function stays, and both
layers' weights of the channel get the same range. s = sqrt(r1 r2) / r2, r1 and r2 the largest magnitudes of the
weights that make the channel and that take it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from suite.arithmetic.affine import by_channel
from suite.networks.graph import BATCH_NORM, MULTIPLY, Graph, Tracer, graph_of
from suite.recipe.errors import SuiteError
from suite.recipe.method import Relu6

LIMIT = 30
"""Rounds over a chain of more than two layers, whose scales depend on each other; each brings the ranges closer."""


@torch.no_grad()
def equalize(model: nn.Module, relu6: Relu6 = "kept") -> tuple[tuple[str, str], ...]:
    """Equalize in place along every chain of the traced graph; the pairs of layers between which channels were scaled.

    A layer with BatchNorm behind it is scaled by that: its weight and bias are divided. A BatchNorm without them, and
    a channel without weights on one side, stay as they are. No scale passes ReLU6, which would clip elsewhere, unless
    it is "replaced" by ReLU first, as in the paper: then the model gives other outputs wherever a value was clipped.
    None passes to or from a transposed convolution, nor from channels to the places of images.
    Raises SuiteError where torch.fx cannot trace the model.
    """
    graph = _graph(model.eval(), relu6)
    _check_traces(graph)
    if relu6 == "replaced":
        for name in graph.clipped:
            model.set_submodule(name, nn.ReLU())
    batch_norms = dict(graph.conv_bn)
    pairs = []
    for links in _links(model, graph):
        for _ in range(LIMIT if len(links) > 1 else 1):
            scales = [_scale(model, one, batch_norms.get(one), other) for one, other in links]
            if all(torch.allclose(scale, torch.ones_like(scale), rtol=1e-6) for scale in scales):
                break
        pairs += links
    return tuple(pairs)


def _graph(model: nn.Module, relu6: Relu6) -> Graph:
    """The graph of the model, whose chains pass ReLU6 only where it is to be replaced."""
    graph = graph_of(model)
    clipping: dict[str, nn.Module] = {}
    while relu6 == "kept" and graph.clipped:  # again for a module of two names
        for name in graph.clipped:
            clipping[name] = model.get_submodule(name)
            model.set_submodule(name, nn.Hardtanh(0.0, 6.0))  # the same function, which no chain passes
        graph = graph_of(model)
    for name, module in clipping.items():
        model.set_submodule(name, module)
    return graph


def _links(model: nn.Module, graph: Graph) -> list[list[tuple[str, str]]]:
    """Of each chain the pairs of layers between which a scale can be moved."""
    batch_norms = dict(graph.conv_bn)
    called = {str(node.target): node for node in Tracer(MULTIPLY).trace(model).nodes}
    return [
        [
            (one, other)
            for one, other in pairwise(chain)
            if _scalable(model, batch_norms.get(one)) and _share_channels(model, called[one], called[other])
        ]
        for chain in graph.chains
    ]


def _share_channels(model: nn.Module, one: fx.Node, other: fx.Node) -> bool:
    """Whether a channel of what `one` gives is one input of `other`. A convolution has its channels in dimension 1, a
    linear layer in the last one; flattening from dimension 1 on makes that the same."""
    before, behind = (model.get_submodule(str(node.target)) for node in (one, other))
    if any(isinstance(layer, nn.modules.conv._ConvTransposeNd) for layer in (before, behind)):
        return False
    in_images, now = isinstance(before, nn.modules.conv._ConvNd), other.all_input_nodes[0]
    while now is not one:
        if (dims := _flattened(model, now)) is not None:
            if dims != (1, -1):
                return False
            in_images = False
        now = now.all_input_nodes[0]
    return in_images == isinstance(behind, nn.modules.conv._ConvNd)


def _flattened(model: nn.Module, node: fx.Node) -> tuple[object, object] | None:
    """The first and the last dimension that `node` makes one; None where it does something else."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return (module.start_dim, module.end_dim) if isinstance(module, nn.Flatten) else None
    if node.target not in (torch.flatten, "flatten"):
        return None
    given = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
    return given.get("start_dim", 0), given.get("end_dim", -1)


def _check_traces(graph: Graph) -> None:
    """Raise SuiteError where torch.fx cannot trace the model."""
    if graph.untraced:
        raise SuiteError(
            f"layers cannot be equalized: torch.fx cannot trace the network ({graph.untraced}); take a method that "
            f"does not equalize, or rewrite the network's forward so that it does not depend on values"
        )


def check_equalizes(model: nn.Module, relu6: Relu6) -> None:
    """Raise SuiteError where torch.fx cannot trace the model, and where no channels of it can be scaled."""
    graph = _graph(model, relu6)
    _check_traces(graph)
    if any(_links(model, graph)):
        return
    through = " but through ReLU6, which relu6='replaced' makes ReLU" if graph_of(model).clipped else ""
    raise SuiteError(
        f"nothing can be equalized: no layer of the network passes its output to one other layer alone, through "
        f"functions that keep a scale, such as ReLU{through}; take a method that does not equalize"
    )


def _scalable(model: nn.Module, batch_norm: str | None) -> bool:
    return batch_norm is None or isinstance(getattr(model.get_submodule(batch_norm), "weight", None), Tensor)


def _scale(model: nn.Module, one: str, batch_norm: str | None, other: str) -> Tensor:
    before, behind = model.get_submodule(one), model.get_submodule(other)
    ranges_before = outgoing(before, model.get_submodule(batch_norm) if batch_norm else None)
    ranges_behind = incoming(behind)
    dead = (ranges_before == 0) | (ranges_behind == 0)
    scale = torch.where(dead, 1.0, (ranges_before * ranges_behind).sqrt() / ranges_behind)
    scaled = model.get_submodule(batch_norm) if batch_norm else before
    for parameter in (scaled.weight, scaled.bias):
        if isinstance(parameter, Tensor):
            parameter.div_(by_channel(scale, parameter, 0))
    weight = behind.weight
    assert isinstance(weight, Tensor)
    groups = _groups(behind)
    each = scale.repeat_interleave(len(weight) // groups) if groups > 1 else scale
    weight.mul_(by_channel(each, weight, 0 if groups > 1 else 1))
    return scale


def outgoing(layer: nn.Module, batch_norm: nn.Module | None) -> Tensor:
    """The largest magnitude of the weights of each output channel, with BatchNorm folded in; float32 [channels]."""
    assert isinstance(layer.weight, Tensor)
    ranges = layer.weight.detach().flatten(1).abs().amax(1)
    if isinstance(batch_norm, BATCH_NORM) and batch_norm.running_var is not None:
        ranges = ranges * batch_norm.weight.abs() / (batch_norm.running_var + batch_norm.eps).sqrt()
    return ranges


def incoming(layer: nn.Module) -> Tensor:
    """The largest magnitude of the weights of each input channel; float32 [channels]."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    groups = _groups(layer)
    by_input = (
        weight.detach().reshape(groups, -1) if groups > 1 else weight.detach().transpose(0, 1).flatten(1)
    )
    return by_input.abs().amax(1)


def _groups(layer: nn.Module) -> int:
    """Of a layer in a chain: 1, or as many as it has inputs, each with the filters that read it alone."""
    return int(getattr(layer, "groups", 1))
