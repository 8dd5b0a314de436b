"""Layers with an offset of zero on input and output: what derivatives with respect to activations are taken of.

An offset is a leaf of the autograd graph, so that a ReLU that works in place behind the layer disturbs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.own_forward import computed, has_own_forward, product


@dataclass
class Call:
    """One call of a layer: what it took and gave, without history, and the offsets that were added to them."""

    input: Tensor
    output: Tensor
    input_offset: Tensor
    output_offset: Tensor
    slopes: dict[str, Tensor] = field(default_factory=dict)
    """Derivatives with respect to the output, by what they are of."""


@dataclass
class Calls:
    """Those of each layer since they were last cleared, by its name."""

    of: dict[str, list[Call]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget them, with their graph."""
        for calls in self.of.values():
            calls.clear()


class _Offset(nn.Module):
    def __init__(self, layer: nn.Module, calls: list[Call]) -> None:
        super().__init__()
        self.layer, self.calls = layer, calls

    def forward(self, x: Tensor) -> Tensor:
        before = torch.zeros_like(x, requires_grad=True)
        y: Tensor = self.layer(x + before)
        behind = torch.zeros_like(y, requires_grad=True)
        self.calls.append(Call(x.detach(), y.detach(), before, behind))
        return y + behind


@contextmanager
def offset(model: nn.Module, names: Sequence[str]) -> Iterator[Calls]:
    """Add offsets to the layers `names` of `model`, in place, and take them away at the end."""
    layers = {name: model.get_submodule(name) for name in names}
    calls = Calls({name: [] for name in names})
    try:
        for name, layer in layers.items():
            model.set_submodule(name, _Offset(layer, calls.of[name]))
        yield calls
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)


def moved_by_weight(layer: nn.Module, x: Tensor, error: Tensor) -> Tensor:
    """By how much what a convolution or linear layer gives for `x` moves with an `error` of its weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if has_own_forward(layer):  # may be anything but linear
        return computed(layer, x, weight + error) - computed(layer, x, weight)
    return product(layer, x, error)


def moved_by_input(layer: nn.Module, x: Tensor, error: Tensor) -> Tensor:
    """By how much it moves with an `error` of its input `x`."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if has_own_forward(layer):
        return computed(layer, x + error, weight) - computed(layer, x, weight)
    return product(layer, error, weight)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, summed over the images, so that each has a gradient of its own."""
    return F.cross_entropy(logits.float(), labels, reduction="sum")
