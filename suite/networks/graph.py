"""What a network's traced graph says of its layers: first and last, Conv-BatchNorm pairs, residual blocks, chains.

torch.fx sees functions and methods too, such as F.relu and `x + y`. A network that it cannot trace, because its
forward depends on values, has an untraced Graph: layers in the order of the modules, and nothing else.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from suite.networks.own_forward import has_own_forward
from suite.networks.ties import joined, shared_or_added
from suite.recipe.errors import first_line

MULTIPLY: tuple[type[nn.Module], ...] = (nn.modules.conv._ConvNd, nn.Linear)
"""The modules that multiply: convolutions of 1 to 3 dimensions, transposed too, and linear layers."""

QUANTIZED: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Those of them whose weights and inputs quantizers can reach."""

BATCH_NORM = nn.modules.batchnorm._BatchNorm

ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}

HOMOGENEOUS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Flatten),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
)
"""f(s x) = s f(x) for s > 0, channel by channel: a scale passes from the layer before to the layer behind."""

HOMOGENEOUS_CALLS = {
    *(
        F.relu,
        F.leaky_relu,
        F.dropout,
        F.max_pool2d,
        F.avg_pool2d,
        F.adaptive_avg_pool2d,
        F.adaptive_max_pool2d,
    ),
    *(torch.relu, torch.flatten, torch.relu_, "relu", "relu_", "flatten", "contiguous"),
}


@dataclass(frozen=True)
class Block:
    """A residual block: `layers` lie between where the paths part and where they are added; `module` is the module
    that holds them all, "" where that is the whole network."""

    module: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Names of modules. `layers` are those that multiply, in the order in which they compute.

    first: what the input reaches through no other layer; last: what reaches the output through no other.
    conv_bn: (convolution or linear layer, BatchNorm that alone takes its output), each called once.
    chains: runs of layers of which each passes its output, through BatchNorm of a pair and functions that keep a
    scale, to the next alone; a scale of a channel can be moved along them (cross-layer equalization, 1906.04721).
    clipped: the ReLU6 modules inside chains, which keep a scale only once they are replaced by ReLU.
    tied: groups of layers that take one tensor, or whose outputs, behind BatchNorm and sums at most, are added.
    called: the modules that compute. A layer or BatchNorm with a forward of its own is in no pair and no chain.
    untraced: why there is no graph; empty where there is one.
    """

    layers: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    conv_bn: tuple[tuple[str, str], ...] = ()
    blocks: tuple[Block, ...] = ()
    chains: tuple[tuple[str, ...], ...] = ()
    clipped: tuple[str, ...] = ()
    tied: tuple[tuple[str, ...], ...] = ()
    called: frozenset[str] = frozenset()
    untraced: str = ""

    def reported(self) -> Graph:
        """Itself; where there is no graph, that is printed."""
        if self.untraced:
            words = "the order of its modules is taken for that in which they compute"
            print(f"torch.fx cannot trace the network ({self.untraced}); {words}", flush=True)
        return self


def left_in_float(model: nn.Module) -> tuple[str, ...]:
    """The names of the parameters of two or more dimensions that no quantizer reaches: those of other modules than
    convolutions and linear layers that are called, such as transposed convolutions, attention and embeddings."""
    graph, found = graph_of(model), model.named_modules()
    reached = {id(one.weight) for name, one in found if is_called(one, QUANTIZED) and calls(graph, name)}
    named = model.named_parameters()
    return tuple(name for name, weight in named if weight.dim() > 1 and id(weight) not in reached)


def is_called(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of `kinds` and computes by its forward. The last projection of nn.MultiheadAttention does
    not: the attention takes its weight."""
    return isinstance(module, kinds) and not isinstance(module, NonDynamicallyQuantizableLinear)


def calls(graph: Graph, name: str) -> bool:
    """Whether a module computes, by itself or within one of torch's that does; of an untraced network each may."""
    parts = name.split(".")
    within = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return bool(graph.untraced or within & graph.called)


def _multiplies(module: nn.Module) -> bool:
    return is_called(module, MULTIPLY)


def graph_of(
    model: nn.Module,
    multiplies: Callable[[nn.Module], bool] = _multiplies,
    whole: tuple[type[nn.Module], ...] = MULTIPLY,
) -> Graph:
    """The graph of `model`. `multiplies` says which modules are its layers; those of `whole` are not traced inside."""
    tracer = Tracer(whole)
    try:
        nodes = list(tracer.trace(model).nodes)
    except Exception as error:  # of whatever the network's forward does with a stand-in for its input
        names = tuple(name for name, module in model.named_modules() if multiplies(module))
        return Graph(names, names[:1], names[-1:], untraced=first_line(error))
    return _Reader(model, nodes, multiplies).graph()


class Tracer(fx.Tracer):
    """Keeps the modules of `whole` whole, beside those of torch.nn."""

    def __init__(self, whole: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*self.whole, BATCH_NORM)) or super().is_leaf_module(m, module_qualified_name)


class _Reader:
    """Reads a traced graph. Nodes are in the order in which they compute."""

    def __init__(
        self, model: nn.Module, nodes: list[fx.Node], multiplies: Callable[[nn.Module], bool]
    ) -> None:
        self.nodes = nodes
        self.modules = {
            node: model.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"
        }
        calls = Counter(map(id, self.modules.values()))
        self.once = {node for node, module in self.modules.items() if calls[id(module)] == 1}
        self.layers = [node for node, module in self.modules.items() if multiplies(module)]
        self.order = {node: number for number, node in enumerate(nodes)}
        self.above = {node: set[fx.Node]() for node in nodes}
        for node in nodes:
            for given in node.all_input_nodes:
                self.above[node] |= {given} | self.above[given]

    def graph(self) -> Graph:
        pairs = [(node, bn) for node in self.layers if (bn := self._batch_norm_of(node))]
        chains, clipped = self._chains(dict(pairs))
        ties = shared_or_added(self.nodes, self.layers, _is_sum, self._before_norm)
        layers = tuple(dict.fromkeys(map(_name, self.layers)))
        return Graph(
            layers=layers,
            first=_names(node for node in self.layers if not self.above[node] & set(self.layers)),
            last=_names(self._last()),
            conv_bn=tuple((_name(node), _name(bn)) for node, bn in pairs),
            blocks=self._blocks(),
            chains=chains,
            clipped=clipped,
            called=frozenset(map(_name, self.modules)),
            tied=joined(layers, map(_names, ties)),
        )

    def _before_norm(self, node: fx.Node) -> fx.Node:
        """What BatchNorm normalizes, where `node` is BatchNorm; else `node`."""
        return node.all_input_nodes[0] if isinstance(self.modules.get(node), BATCH_NORM) else node

    def _last(self) -> list[fx.Node]:
        """What reaches the output through no other layer."""
        waiting = [node for node in self.nodes if node.op == "output"]
        found, seen = [], set[fx.Node]()
        while waiting:
            for given in waiting.pop().all_input_nodes:
                if given in seen:
                    continue
                seen.add(given)
                if given in self.layers:
                    found.append(given)
                else:
                    waiting.append(given)
        return sorted(found, key=self.order.__getitem__)

    def _batch_norm_of(self, node: fx.Node) -> fx.Node | None:
        following = self._only_user(node)
        pair = isinstance(self.modules.get(following), BATCH_NORM) if following else False
        return following if pair and {node, following} <= self.once and self._plain(node, following) else None

    def _plain(self, *nodes: fx.Node | None) -> bool:
        """Whether each computes as torch's module of its kind does."""
        return not any(node in self.modules and has_own_forward(self.modules[node]) for node in nodes if node)

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def _blocks(self) -> tuple[Block, ...]:
        found = []
        for node in self.nodes:
            if not _is_sum(node) or len(node.all_input_nodes) != 2:
                continue
            one, other = ({given} | self.above[given] for given in node.all_input_nodes)
            fork = max(one & other, key=self.order.__getitem__, default=None)
            if fork is None:
                continue
            between = [layer for layer in self.layers if fork in self.above[layer] and layer in one | other]
            if between:
                names = _names(between)
                found.append(Block(_common(names), names))
        return tuple(found)

    def _chains(
        self, batch_norms: dict[fx.Node, fx.Node]
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        behind: dict[fx.Node, fx.Node] = {}
        clipped: list[str] = []
        for node in self.layers:
            passed: list[str] = []
            following = self._next_layer(node, batch_norms.get(node), passed)
            if following is not None:
                behind[node] = following
                clipped += passed
        chains = []
        for node in self.layers:
            if node in behind and node not in behind.values():
                chain = [node]
                while chain[-1] in behind:
                    chain.append(behind[chain[-1]])
                chains.append(_names(chain))
        return tuple(chains), tuple(clipped)

    def _next_layer(self, node: fx.Node, batch_norm: fx.Node | None, clipped: list[str]) -> fx.Node | None:
        """The layer that alone takes what `node` gives, where each of its channels is one of that layer's inputs."""
        if node not in self.once or not self._plain(node):
            return None
        passed, now = batch_norm or node, self._only_user(batch_norm or node)
        while now is not None and now.all_input_nodes == [passed]:
            module = self.modules.get(now)
            if now in self.layers:
                fits = now in self.once and self._plain(now) and _fits(self.modules[node], self.modules[now])
                return now if fits else None
            if isinstance(module, nn.ReLU6):
                clipped.append(_name(now))
            elif not (
                isinstance(module, HOMOGENEOUS) if module is not None else now.target in HOMOGENEOUS_CALLS
            ):
                return None
            passed, now = now, self._only_user(now)
        return None


def _fits(before: nn.Module, behind: nn.Module) -> bool:
    """Whether channel k of what `before` gives is input k of `behind`, of each of its filters or of filter k alone."""
    outputs = getattr(before, "out_channels", getattr(before, "out_features", None))
    inputs = getattr(behind, "in_channels", getattr(behind, "in_features", None))
    groups = getattr(behind, "groups", 1)
    return outputs is not None and outputs == inputs and groups in (1, inputs)


def _is_sum(node: fx.Node) -> bool:
    return node.op != "call_module" and node.target in ADD


def _name(node: fx.Node) -> str:
    return str(node.target)


def _names(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_name, nodes)))


def _common(names: tuple[str, ...]) -> str:
    """The module that holds all of these, by the dots of their names; a single layer is its own."""
    parts = [name.split(".") for name in names]
    together = []
    for step in zip(*parts, strict=False):
        if len(set(step)) > 1:
            break
        together.append(step[0])
    return ".".join(together)
