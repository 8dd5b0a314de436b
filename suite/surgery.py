"""Put quantizers on the inputs and weights of chosen layers of a copy of a model, and bake them in.

A copied model whose `forward` was patched would run the original (source 000's trap), so nothing is patched:
a layer is replaced by a module that holds it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.affine import Grid, fake_quantize
from suite.observers import InFlight, Observer
from suite.values import not_finite

Mode = Literal["observe", "track", "in_flight", "frozen"]


class Quantizer(nn.Module):
    """Watches a tensor and rounds it to `grid`: symmetric about zero, or affine with a zero_point.

    mode "observe": watch, and let pass unchanged (calibration).
    mode "track": while training watch and round, while evaluating round with the last range (QAT).
    mode "in_flight": watch and round, always.
    mode "frozen": round with the last range.
    With `unsigned` a tensor that was never below zero gets the unsigned grid of as many bits, any other the narrow
    one. `steps` is that of Grid.symmetric.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        grid: Grid,
        observer: Observer,
        mode: Mode,
        symmetric: bool = True,
        axis: int | None = None,
        unsigned: bool = False,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.symmetric, self.axis, self.mode = grid, symmetric, axis, mode
        self.unsigned, self.steps = unsigned, steps
        self.observer: Observer | None = observer
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros(()))

    def set_range(self, checked: bool = True) -> None:
        """Take scale and zero_point from the observer's range; `checked` asks whether it is one, which waits for
        the device."""
        assert self.observer is not None
        if self.unsigned:
            positive = bool(self.observer.low >= 0)
            self.grid = Grid(self.grid.bits, signed=not positive, narrow=not positive)
        low, high = self.observer.range(self.grid) if checked else self.observer.limits(self.grid)
        if self.symmetric:
            amax = torch.maximum(-low, high)
            self.scale, self.zero_point = self.grid.symmetric(amax, self.steps, checked)
        else:
            self.scale, self.zero_point = self.grid.affine(low, high, checked)

    def forward(self, x: Tensor) -> Tensor:
        watches = self.mode in ("observe", "in_flight") or (self.mode == "track" and self.training)
        if watches:
            assert self.observer is not None
            self.observer(x)
        if self.mode == "observe":
            return x
        if watches:
            self.set_range(checked=not self.training)
        zero_point = None if self.symmetric else self.zero_point
        grid = self.grid
        return fake_quantize(x, self.scale, zero_point, grid.quant_min, grid.quant_max, self.axis)

    def set_bits(self, bits: int) -> None:
        """Another width, before anything was rounded."""
        self.grid = replace(self.grid, bits=bits)

    def settled(self, x: Tensor) -> Tensor:
        """`x` watched once more and rounded with the range that results."""
        assert self.observer is not None
        self.observer(x)
        self.set_range()
        self.mode = "frozen"
        result: Tensor = self(x)
        return result

    def fix(self, grid: Grid, scale: Tensor, zero_point: Tensor) -> None:
        """Round to this grid from now on."""
        device = self.scale.device
        self.grid, self.scale, self.zero_point = grid, scale.to(device), zero_point.to(device)
        self.mode, self.observer = "frozen", None

    def freeze(self) -> None:
        """Keep the range and forget the observer; one that follows each batch keeps following."""
        if self.mode == "observe":
            self.set_range()
        if self.mode != "in_flight":
            self.mode, self.observer = "frozen", None


class Quantized(nn.Module):
    """A `layer` whose input passes `input` and whose weight passes `weight` first; either may be None."""

    def __init__(self, layer: nn.Module, input: Quantizer | None, weight: Quantizer | None) -> None:
        super().__init__()
        self.layer, self.input, self.weight = layer, input, weight

    def forward(self, x: Tensor) -> Tensor:
        if self.input is not None:
            x = self.input(x)
        if self.weight is None:
            result: Tensor = self.layer(x)
            return result
        weight = self.weight(self.layer.weight)
        bias = self.layer.bias
        assert isinstance(bias, Tensor) or bias is None
        if isinstance(self.layer, nn.Conv2d):
            convolved: Tensor = self.layer._conv_forward(x, weight, bias)
            return convolved
        return F.linear(x, weight, bias)


def quantize(
    model: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    input: Callable[[bool], Quantizer | None],
    weight: Callable[[], Quantizer],
) -> nn.Module:
    """A copy of `model` in which each module of `kinds` is held by a Quantized with quantizers of its own.

    input(is_first) makes the quantizer of a module's input; is_first is true of the first of `kinds` in the model's
    order, the one that sees the image. weight() makes that of a weight, where the module has one.
    """
    model = finite_copy(model)
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    for place, (name, module) in enumerate(found):
        weighted = isinstance(getattr(module, "weight", None), nn.Parameter)
        held = Quantized(module, input(place == 0), weight() if weighted else None)
        for what, quantizer in (("input", held.input), ("weight", held.weight)):
            observer = getattr(quantizer, "observer", None)  # a peer's quantizer in a benchmark may have none
            if observer is not None:
                observer.of = f"the {what} of layer {name}"
        model.set_submodule(name, held)
    return model


def finite_copy(model: nn.Module) -> nn.Module:
    """A copy of `model`, to quantize. Raises SuiteError, naming it, where a parameter or a buffer holds inf or NaN."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise not_finite(f"{name} of the model")
    return copy.deepcopy(model)


def set_edges(model: nn.Module, bits: int | None) -> nn.Module:
    """What `quantize` gave, itself, before it observes: its first and its last layer of `bits` each, or float again
    where None."""
    held = [(name, module) for name, module in model.named_modules() if isinstance(module, Quantized)]
    weighted = [(name, module) for name, module in held if isinstance(module.layer, LAYERS)]
    for name, module in (weighted[0], weighted[-1]):
        if bits is None:
            model.set_submodule(name, module.layer)
        else:
            for quantizer in filter(None, (module.input, module.weight)):
                quantizer.set_bits(bits)
    return model


LAYERS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)
"""The layers that multiply: those with a weight to quantize."""
RELU_AND_POOL: tuple[type[nn.Module], ...] = (nn.ReLU, nn.AdaptiveAvgPool2d)
"""What source 002 quantizes the inputs of besides."""


def per_channel(bits: int, mode: Mode) -> Quantizer:
    """A quantizer of a weight on the narrow symmetric grid, each output channel by its own largest magnitude."""
    return Quantizer(Grid(bits, narrow=True), InFlight(axis=0), mode, axis=0)


@torch.no_grad()
def bake(model: nn.Module) -> nn.Module:
    """Write the rounded weights into the layers, freeze every range; changes and returns `model`."""
    for module in model.modules():
        if isinstance(module, Quantized):
            if module.weight is not None:
                weight, quantizer = module.layer.weight, module.weight
                assert isinstance(weight, Tensor)
                rounded, grid = quantizer.settled(weight), quantizer.grid
                limits = grid.limits(quantizer.scale, quantizer.zero_point)
                set_weight(module.layer, rounded, grid.bits, limits=limits)
                module.weight = None
            if module.input is not None:
                module.input.freeze()
    return model


@torch.no_grad()
def set_weight(
    layer: nn.Module,
    weight: Tensor,
    bits: int,
    name: str = "weight",
    limits: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Overwrite a parameter with quantized values; note how many bits each takes when stored, and the ends of the grid
    in real units, one value each or one a channel."""
    getattr(layer, name).copy_(weight)
    layer.__dict__.setdefault("stored_bits", {})[name] = bits
    layer.__dict__.setdefault("stored_limits", {})[name] = limits


def size_mb(model: nn.Module) -> float:
    """Megabytes (1e6 bytes) of all parameters and BatchNorm statistics as they would be stored.

    A quantized weight takes the bits `set_weight` noted, an int8 module of torch.ao one byte a weight, anything
    else what its dtype takes. Scales and zero points are left out (under 1 % in every method here).
    """
    bits = 0
    for module in model.modules():
        stored = module.__dict__.get("stored_bits", {})
        for name, parameter in module.named_parameters(recurse=False):
            bits += parameter.numel() * stored.get(name, 8 * parameter.element_size())
        if isinstance(module, nn.BatchNorm2d):
            bits += 2 * 32 * module.num_features
        if not isinstance(module, Quantized):
            bits += _packed_bits(module)
    return bits / 8e6


def _packed_bits(module: nn.Module) -> int:
    """Bits of an int8 module of torch.ao: its weight and bias are methods, not parameters."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not callable(weight):
        return 0
    floats = bias() if callable(bias) else None
    return 8 * int(weight().numel()) + (32 * int(floats.numel()) if floats is not None else 0)


class CastInput(nn.Module):
    """A model that computes in `dtype` on an input truncated to integers where `truncate`."""

    def __init__(self, model: nn.Module, truncate: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.truncate, self.dtype = model.to(dtype), truncate, dtype

    def forward(self, x: Tensor) -> Tensor:
        x = x.trunc() if self.truncate else x
        result: Tensor = self.model(x.to(self.dtype))
        return result


class OnCpu(nn.Module):
    """A model that stays on the CPU, wherever its input lies."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x.cpu())
        return result.to(x.device)
