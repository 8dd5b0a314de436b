"""Histograms of tensors of every distribution that a layer's input may have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import Grid, fake_quantize
from suite.ranges.histogram import Histograms, observe

KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "relu": lambda x: x.relu(),
    "heavy tail": lambda x: x**3,
    "relu with an outlier": lambda x: torch.cat([x.relu(), torch.tensor([40.0])]),
    "skewed": lambda x: x.exp() - 0.5,
    "trained": lambda x: (x * (1 + x[0].abs())).relu() ** 1.5,
}


def sample(kind: str, seed: int = 0, number: int = 20_000) -> Tensor:
    return KINDS[kind](torch.randn(number, generator=torch.Generator().manual_seed(seed)))


def seen_of(*tensors: Tensor) -> Histograms:
    """An observation of one layer per tensor."""
    watched = [observe(nn.Sequential(nn.Identity()), [x], (nn.Identity,)) for x in tensors]
    return Histograms(
        tuple(str(row) for row in range(len(tensors))),
        torch.cat([one.counts for one in watched]),
        torch.cat([one.low for one in watched]),
        torch.cat([one.high for one in watched]),
    )


def error(x: Tensor, grid: Grid, scale: Tensor, zero_point: Tensor) -> float:
    rounded = fake_quantize(x, scale, zero_point, grid.quant_min, grid.quant_max)
    return float((rounded - x).square().sum(dtype=torch.float64))
