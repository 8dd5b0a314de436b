"""Tensors that have gone wrong before: every shape, dtype and size of number that a network can bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

BITS = st.integers(2, 16)
SEEDS = st.integers(0, 2**31)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HALVES = (torch.float16, torch.bfloat16)
NOT_FINITE = (float("inf"), float("-inf"), float("nan"))


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dead_channels(x: Tensor) -> Tensor:
    """One of zeros in each dimension, beside others."""
    for dim in range(x.dim()):
        x.select(dim, 0).zero_()
    return x


KINDS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "normal": lambda x, limits: x,
    "after ReLU": lambda x, limits: x.relu(),
    "all negative": lambda x, limits: -x.abs() - 0.1,
    "zeros": lambda x, limits: x * 0,
    "one value": lambda x, limits: torch.full_like(x, float(x.flatten()[0])),
    "dead channels": lambda x, limits: dead_channels(x),
    "an outlier": lambda x, limits: x.index_fill(0, torch.tensor([0]), 3e4),
    "denormals": lambda x, limits: x * limits.tiny / 8,
    "very small": lambda x, limits: x * limits.tiny * 16,
    # A range from -max to max is no float32; half precision may go to its very end.
    "very large": lambda x, limits: x / x.abs().max() * limits.max * (1 if limits.max < 1e5 else 0.49),
}


@st.composite
def tensors(draw: Any, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Tensor:
    """Finite, of one to four dimensions and one of `dtypes`."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    dtype, kind = draw(st.sampled_from(dtypes)), draw(st.sampled_from(sorted(KINDS)))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(draw(SEEDS)))
    made = KINDS[kind](x, torch.finfo(dtype)).to(dtype)
    assert made.isfinite().all()
    return made


def gradients(y: Tensor, of: list[Tensor], grad: Tensor) -> list[Tensor]:
    """Those of `of` where `grad` is that of `y`."""
    return list(torch.autograd.grad(y, of, grad))
