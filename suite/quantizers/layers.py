"""Put quantizers on the inputs and weights of chosen layers of a copy of a model, and bake them in.

A copied model whose `forward` was patched would run the original (source 000's trap), so nothing is patched:
a layer is replaced by a module that holds it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.compiler import is_compiling

from suite.networks.graph import Graph, calls, graph_of, is_called
from suite.networks.own_forward import by_its_modules, computed, with_plain_weights
from suite.quantizers.quantizer import Quantizer
from suite.recipe import FLOAT_BITS
from suite.recipe.errors import SuiteError, not_finite

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Quantized(nn.Module):
    """A `layer` whose input passes `input` and whose weight passes `weight` first; either may be None."""

    def __init__(self, layer: nn.Module, input: Quantizer | None, weight: Quantizer | None) -> None:
        super().__init__()
        self.layer, self.input, self.weight = layer, input, weight

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives for `x`, in the layer's own shapes, its input and its weight rounded."""
        if self.input is None:
            return self._layer(x)
        rounded = self.input(x)
        if not torch.is_grad_enabled() or not getattr(self.input, "repeats", False) or is_compiling():
            return self._layer(rounded)
        with saved_tensors_hooks(*_rounded_again(self.input, x, rounded)):
            return self._layer(rounded)

    def _layer(self, x: Tensor) -> Tensor:
        if self.weight is None:
            result: Tensor = self.layer(x)
            return result
        return computed(self.layer, x, self.weight(self.layer.weight))


@overload
def layer_of(module: nn.Module) -> nn.Module: ...
@overload
def layer_of(module: None) -> None: ...
def layer_of(module: nn.Module | None) -> nn.Module | None:
    """The layer itself, also where it stands in a Quantized."""
    return module.layer if isinstance(module, Quantized) else module


def _rounded_again(
    quantizer: nn.Module, x: Tensor, rounded: Tensor
) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
    """How a layer keeps tensors for its backward pass: its `rounded` input not at all, as the quantizer that made it
    of `x` makes it again. A compiler decides by itself what it keeps."""
    x, same = x.detach(), (rounded.data_ptr(), rounded.shape, rounded.stride(), rounded.dtype)

    def kept(tensor: Tensor) -> Tensor | None:
        one = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        return None if one == same else tensor

    @torch.no_grad()
    def found(tensor: Tensor | None) -> Tensor:
        again: Tensor = quantizer(x) if tensor is None else tensor
        return again

    return kept, found


def quantize(
    model: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    input: Callable[[bool], Quantizer | None],
    weight: Callable[[], Quantizer | None],
) -> nn.Module:
    """A copy of `model` in which each module of `kinds` is held by a Quantized with quantizers of its own, all on the
    model's device.

    input(is_first) makes the quantizer of a module's input; is_first is true of those that see the image. weight()
    makes that of a weight, where the module has one. A layer that the network does not call, such as the projections
    of multi-head attention and what it has but does not use, stays as it is.

    Raises SuiteError where there is no layer with a weight among them.
    """
    model = finite_copy(model)
    graph = graph_of(model, partial(is_called, kinds=kinds), kinds)
    found = layers_of(model, kinds, graph)
    also = _other_names(model)
    for name, module in found:
        weighted = isinstance(getattr(module, "weight", None), nn.Parameter)
        held = Quantized(module, input(name in graph.first), weight() if weighted else None)
        for what, quantizer in (("input", held.input), ("weight", held.weight)):
            observer = getattr(quantizer, "observer", None)  # a peer's quantizer in a benchmark may have none
            if observer is not None:
                observer.of = f"the {what} of layer {name}"
        for one in (name, *also.get(id(module), ())):
            model.set_submodule(one, held)
    return model.to(next((parameter.device for parameter in model.parameters()), None))


def layers_of(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], graph: Graph
) -> list[tuple[str, nn.Module]]:
    """The modules of `kinds` that the network calls, with their names. Raises SuiteError where none has a weight."""
    named = model.named_modules()
    found = [(name, module) for name, module in named if is_called(module, kinds) and calls(graph, name)]
    if any(isinstance(module, LAYERS) for _, module in found):
        return found
    names = ", ".join(f"nn.{kind.__name__}" for kind in kinds if issubclass(kind, LAYERS))
    raise SuiteError(
        f"the network calls no module of {names}, so nothing in it would be quantized; keep its weights in such "
        f"modules and call these, in the place of functions such as F.conv2d"
    )


def _other_names(model: nn.Module) -> dict[int, list[str]]:
    """Under which other names than its first a module lies in the model, by its id."""
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(id(module), []).append(name)
    return {module: names[1:] for module, names in found.items() if len(names) > 1}


def finite_copy(model: nn.Module) -> nn.Module:
    """A copy of `model`, to quantize: weights that it computes of others (weight_norm) are as they are now.

    Raises SuiteError, naming it, where a parameter or a buffer holds inf or NaN.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise not_finite(f"{name} of the model")
    return by_its_modules(with_plain_weights(copy.deepcopy(model)))


def first_and_last(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the first and of the last layers of those that `quantize` put quantizers on and that multiply: what
    the image reaches, and what reaches the output, through no other layer."""
    graph = graph_of(model, _multiplies, (Quantized,)).reported()
    return graph.first, graph.last


def _multiplies(module: nn.Module) -> bool:
    return isinstance(module, Quantized) and isinstance(module.layer, LAYERS)


def set_widths(model: nn.Module, widths: Mapping[str, tuple[int, int]]) -> None:
    """Give layers of what `quantize` gave, by name, other (weight bits, input bits) before they observe; 32 is float.

    Raises SuiteError for a name that is no such layer's.
    """
    held = {name: module for name, module in model.named_modules() if isinstance(module, Quantized)}
    for name, (weight_bits, input_bits) in widths.items():
        if name not in held:
            raise no_layer(name, held)
        module = held[name]
        module.weight = _of_width(module.weight, weight_bits)
        module.input = _of_width(module.input, input_bits)
        if module.weight is None and module.input is None:
            model.set_submodule(name, module.layer)


def no_layer(name: str, layers: Iterable[str]) -> SuiteError:
    """Of a `name` that is none of the `layers`."""
    return SuiteError(f"{name!r} is no quantized layer; the layers are {', '.join(layers)}")


def without_quantizers(model: nn.Module) -> nn.Module:
    """The float network of what `quantize` gave, before its weights are rounded: a copy with the layers themselves."""
    network = copy.deepcopy(model)
    for name, module in list(network.named_modules()):
        if isinstance(module, Quantized):
            network.set_submodule(name, module.layer)
    return network


def widths_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(weight bits, input bits), 32 for float, of the layers that multiply of what `quantize` gave, by name; before
    their weights are rounded."""
    return {
        name: (_bits_of(held.weight), _bits_of(held.input))
        for name, held in model.named_modules()
        if isinstance(held, Quantized) and _multiplies(held)
    }


def _bits_of(quantizer: Quantizer | None) -> int:
    return quantizer.grid.bits if quantizer else FLOAT_BITS


def _of_width(quantizer: Quantizer | None, bits: int) -> Quantizer | None:
    if quantizer is None or bits == FLOAT_BITS:
        return None
    quantizer.set_bits(bits)
    return quantizer


LAYERS: tuple[type[nn.Module], ...] = (*CONVOLUTIONS, nn.Linear)
"""The layers that multiply: those with a weight to quantize. Convolutions may be grouped or depthwise."""


RELU_AND_POOL: tuple[type[nn.Module], ...] = (nn.ReLU, nn.AdaptiveAvgPool2d)
"""What source 002 quantizes the inputs of besides."""


@torch.no_grad()
def bake(model: nn.Module) -> nn.Module:
    """Write the rounded weights into the layers, freeze every range; changes and returns `model`. A weight that layers
    hold together and round differently becomes one for each."""
    held = [module for module in model.modules() if isinstance(module, Quantized)]
    found = [
        (one, one.weight, one.weight.settled(_weight(one.layer))) for one in held if one.weight is not None
    ]
    written: set[int] = set()
    for module, quantizer, rounded in found:
        layer, limits = module.layer, quantizer.grid.limits(quantizer.scale, quantizer.zero_point)
        if id(layer.weight) in written and not torch.equal(_weight(layer), rounded):
            layer.weight = nn.Parameter(_weight(layer).clone())
        written.add(id(layer.weight))
        set_weight(layer, rounded, quantizer.grid.bits, limits=limits)
        note_scale(layer, quantizer.scale.detach())
        module.weight = None
    for module in held:
        if module.input is not None:
            module.input.freeze()
    return model


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


@dataclass(frozen=True)
class StoredParameter:
    """What is noted of a parameter that was rounded for good: the `bits` that each value takes when stored; the ends
    of its grid in real units and the scale of its integers, float32, one value each or one a channel, None where not
    known."""

    bits: int
    limits: tuple[Tensor, Tensor] | None = None
    scale: Tensor | None = None


def stored_parameters(layer: nn.Module | None) -> dict[str, StoredParameter]:
    """Of the parameters of a layer that were rounded for good, by name; empty without any."""
    found: dict[str, StoredParameter] = {} if layer is None else layer.__dict__.get("stored_parameters", {})
    return found


def note_scale(layer: nn.Module, scale: Tensor) -> None:
    """Note the scale of the integers of a layer's rounded weight."""
    known = stored_parameters(layer)
    known["weight"] = replace(known["weight"], scale=scale)


@torch.no_grad()
def set_weight(
    layer: nn.Module,
    weight: Tensor,
    bits: int,
    name: str = "weight",
    limits: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Overwrite a parameter with quantized values, `weight` in its shape; note how many bits each takes when stored,
    and the ends of the grid in real units, float32, one value each or one a channel."""
    getattr(layer, name).copy_(weight)
    layer.__dict__.setdefault("stored_parameters", {})[name] = StoredParameter(bits, limits)
