"""Elementwise arithmetic in blocks that stay in the cache of a CPU.

A pass over a tensor of megabytes waits for the memory. Ten operations on one block after the other read it once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CACHE_BLOCK = 1 << 17
"""Elements for each thread: 512 KiB of float32. A few such tensors are more than the cache of a core has (L2), but in
smaller blocks the start of each operation on all threads takes longer than that costs."""


def in_cache_blocks(function: Callable[..., Any], x: Tensor, *others: Tensor) -> Any:
    """`function(x, *others)`, which gives a tensor of the shape and dtype of `x`, or a tuple that begins with one and
    goes on with sums over the elements, float32 [].

    others: tensors of the shape of `x`. On a CPU `function` is called for one block after the other, each
    one-dimensional and shared by all threads, and the sums of the blocks are added; not so where x is small, where it
    is not dense, where torch compiles it, and where the gradient of the result is asked for.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_grad_enabled():
        return function(x, *others)
    layout, block = _layout(x), CACHE_BLOCK * torch.get_num_threads()
    if x.numel() <= block or layout is None:
        return function(x, *others)
    made = torch.empty_like(x)
    flat = [_flat(one.contiguous(memory_format=layout)) for one in (made, x, *others)]
    sums: list[tuple[Tensor, ...]] = []
    for into, *parts in zip(*(torch.split(one, block) for one in flat), strict=True):
        result = function(*parts)
        first, *rest = result if isinstance(result, tuple) else (result,)
        into.copy_(first)
        sums.append(tuple(rest))
    return (made, *(torch.stack(each).sum() for each in zip(*sums, strict=True))) if sums[0] else made


def elements(x: Tensor) -> Tensor:
    """The values of `x`, [x.numel()], in the order in which they lie in memory: where it is dense, no copy."""
    return x.flatten() if _layout(x) is None else _flat(x)


def _layout(x: Tensor) -> torch.memory_format | None:
    """In which of the two orders the elements lie one after the other; None where in neither."""
    if x.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None


def _flat(x: Tensor) -> Tensor:
    """The elements as they lie in memory."""
    return (x if x.is_contiguous() else x.permute(0, 2, 3, 1)).view(-1)
