"""How many weights a layer has and how often it multiplies: what widths are paid in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerSize:
    """`weights` of a layer, and its multiply-accumulates for one image."""

    weights: int
    macs: int


@torch.no_grad()
def layer_sizes(model: nn.Module, names: Sequence[str], batch: Tensor) -> dict[str, LayerSize]:
    """Of the layers `names` of `model`, measured on the images `batch`, float32 [n, channels, height, width]; one that
    computes nothing has no macs."""
    macs = dict.fromkeys(names, 0)

    def count(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        macs[name] += weight.numel() * output.numel() // (len(weight) * len(batch))

    layers = {name: model.get_submodule(name) for name in names}
    hooks = [layer.register_forward_hook(partial(count, name)) for name, layer in layers.items()]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: LayerSize(int(layer.weight.numel()), macs[name])  # type: ignore[operator]
        for name, layer in layers.items()
    }


def totals(sizes: Mapping[str, LayerSize], widths: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """What widths (weight bits, input bits) by layer come to: the mean of the bits of a weight `mean_weight_bits`, by
    parameter, and `mean_weight_bits_by_layer`; bit operations an image `bops`, each multiplication as weight bits
    times input bits, and `weights_mb`, megabytes (1e6 bytes) of the weights."""
    weights = sum(sizes[name].weights for name in widths)
    bits = sum(sizes[name].weights * weight_bits for name, (weight_bits, _) in widths.items())
    return {
        "mean_weight_bits": bits / weights,
        "mean_weight_bits_by_layer": sum(weight_bits for weight_bits, _ in widths.values()) / len(widths),
        "bops": float(sum(sizes[name].macs * one * other for name, (one, other) in widths.items())),
        "weights_mb": bits / 8e6,
    }
