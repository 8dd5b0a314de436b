"""Modules that compute otherwise than torch's class of their kind: subclasses with a forward of their own, such as a
convolution that pads by itself or a BatchNorm with an activation in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from suite.networks.channels_last import input_and_weight


def has_own_forward(module: nn.Module) -> bool:
    """Whether the module is of a subclass of torch's class that computes otherwise."""
    kind = type(module)
    torchs = next((one for one in kind.__mro__ if one.__module__.startswith("torch.")), kind)
    names = ("forward", "_conv_forward")
    return any(getattr(kind, name, None) is not getattr(torchs, name, None) for name in names)


def computed(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """What a convolution or linear layer gives for `x` with another `weight` of the same shape, by its own forward
    where it has one."""
    bias = layer.bias
    assert isinstance(bias, Tensor) or bias is None
    if has_own_forward(layer):
        result: Tensor = torch.func.functional_call(layer, {"weight": weight}, (x,))
        return result
    return product(layer, x, weight, bias)


def product(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What torch's class of a convolution or linear layer gives for `x` with another `weight` and `bias`."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    convolved: Tensor = layer._conv_forward(*input_and_weight(layer, x, weight), bias)  # type: ignore[operator]
    return convolved


def by_its_modules(model: nn.Module) -> nn.Module:
    """`model` itself, each TransformerEncoderLayer computing by the modules that it holds: torch's fused path, in
    evaluation, takes their weights and calls none, so that no quantizer would be reached."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
    return model


def with_plain_weights(model: nn.Module) -> nn.Module:
    """`model` itself, the weights that torch computes of others (weight_norm, spectral_norm) as they are now."""
    for module in model.modules():
        if not parametrize.is_parametrized(module):
            continue
        names: Any = module.parametrizations
        values = {name: getattr(module, name).detach().clone() for name in names}
        # Not by remove_parametrizations, which changes the class that copies of the module share.
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))
    return model
