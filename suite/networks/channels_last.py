"""Networks in the order of values that convolutions are fastest in: the channels of a pixel side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def channels_last(model: nn.Module, device: torch.device | None = None) -> nn.Module:
    """`model` itself, moved to `device` where one is given.

    Runs, evaluations and exports all compute in this order: on it depend the order of sums and so the last bits.
    """
    placed: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in placed.modules():
        if isinstance(layer, nn.Conv2d) and _miscomputed(layer):
            layer.weight.data = _channel_after_channel(layer.weight.data)
            # Only once: a model may be placed again, on another device.
            if _reorder not in layer._forward_pre_hooks.values():
                layer.register_forward_pre_hook(_reorder)
    return placed


def input_and_weight(layer: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The two for a convolution, channel after channel where some CPUs give wrong gradients with channels last.

    On CPUs with AVX2 and without AVX-512, oneDNN 3.12 writes past its workspace in the weight's gradient of some
    layers: with one thread the process aborts ("double free or corruption"), with two the gradient is wrong by a third
    (oneDNN, issue 6035).
    """
    learns = torch.is_grad_enabled() and not torch.compiler.is_compiling()  # which is so in an export too
    if learns and _miscomputed(layer):
        return x.contiguous(), _channel_after_channel(weight)
    return x, weight


def _miscomputed(layer: nn.Module) -> bool:
    """A strided convolution of single pixels with fewer input channels than AVX2 holds numbers."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < 8
    )


def _channel_after_channel(weight: Tensor) -> Tensor:
    """Of a kernel of single pixels, for which `contiguous` sees both orders at once and leaves it as it is."""
    return weight.flatten(1)[:, :, None, None]


def _reorder(layer: nn.Conv2d, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if not inputs:  # called as layer(input=x), which a hook does not see
        return inputs
    return input_and_weight(layer, inputs[0], layer.weight)[0], *inputs[1:]
