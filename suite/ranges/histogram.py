"""Observe once, quantize many: one pass of the float model leaves what the ranges of every method at every width are
computed from.

Every value is rounded to bfloat16 (half to even) and counted under its 16 bits, sign included: 65,536 int64 counts a
tensor. Such a histogram needs no range in advance and has the same relative precision everywhere: a bin is at most
2^-7 of its value wide. Counts add exactly, so the size and the order of the batches change nothing.
The smallest and the largest value are kept exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from suite.networks.graph import calls, graph_of, is_called
from suite.recipe.errors import SuiteError, not_finite

PATTERNS = 1 << 16
"""The bit patterns of a bfloat16; those of magnitudes are the lower half, in order of value."""


@dataclass(frozen=True, eq=False)
class Histograms:
    """What was seen at the input of each of L layers, `names` in the model's order.

    counts: int64 [L, 65536], by bfloat16 bit pattern. low, high: float32 [L], exact; inf and -inf where nothing
    was seen.
    """

    names: tuple[str, ...]
    counts: Tensor
    low: Tensor
    high: Tensor

    @property
    def values(self) -> Tensor:
        """int64 [L]: how many values each layer saw."""
        return self.counts.sum(1)

    @property
    def magnitudes(self) -> Tensor:
        """int64 [L, 32768]: the counts with the sign left out; a new tensor."""
        return self.counts[:, : PATTERNS // 2] + self.counts[:, PATTERNS // 2 :]

    @property
    def amax(self) -> Tensor:
        """float32 [L]: the largest magnitude, exact. Raises SuiteError where a layer saw nothing."""
        for name, high in zip(self.names, self.high.tolist(), strict=True):
            if high == -math.inf:
                raise SuiteError(
                    f"layer {name} saw no tensor: the network called it on none of the images; take it out of the "
                    f"network, or calibrate on images on which it is called"
                )
        return torch.maximum(-self.low, self.high)

    def state(self) -> dict[str, Any]:
        """Names and plain tensors, the empty bins left out: some ten KB a layer; torch.load(weights_only) reads it."""
        layer, pattern = self.counts.nonzero(as_tuple=True)
        return {
            "names": list(self.names),
            "layer": layer.to(torch.int32),
            "pattern": pattern.to(torch.int32),
            "count": self.counts[layer, pattern],
            "low": self.low,
            "high": self.high,
        }

    @staticmethod
    def from_state(state: dict[str, Any]) -> Histograms:
        """The histograms that `state` was taken from."""
        low, high, count = state["low"], state["high"], state["count"]
        counts = torch.zeros(len(state["names"]), PATTERNS, dtype=torch.int64, device=count.device)
        counts[state["layer"].long(), state["pattern"].long()] = count
        return Histograms(tuple(state["names"]), counts, low, high)


@torch.no_grad()
def observe(model: nn.Module, batches: Iterable[Tensor], kinds: tuple[type[nn.Module], ...]) -> Histograms:
    """Run `model` once over `batches`, evaluating, and observe the input of each module of `kinds` that it calls.

    The model is left as it was, its hooks off and its modes restored, also after an error. A tensor that feeds several
    layers is counted once. Raises SuiteError, naming the layer, where an input is empty or holds inf or NaN.
    """
    graph = graph_of(model, partial(is_called, kinds=kinds), kinds)
    named = model.named_modules()
    found = [(name, module) for name, module in named if is_called(module, kinds) and calls(graph, name)]
    if not found:
        raise SuiteError(
            f"the model has no {' or '.join(kind.__name__ for kind in kinds)} to observe; name other kinds of module"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    names = tuple(name for name, _ in found)
    seen = Histograms(
        names,
        torch.zeros(len(names), PATTERNS, dtype=torch.int64, device=device),
        torch.full((len(names),), math.inf, device=device),
        torch.full((len(names),), -math.inf, device=device),
    )
    known = WeakTensorKeyDictionary()
    with _evaluating(model):
        hooks = [
            module.register_forward_pre_hook(_watcher(seen, row, known))
            for row, (_, module) in enumerate(found)
        ]
        try:
            for x in batches:
                model(x)
                known.clear()
        finally:
            for hook in hooks:
                hook.remove()
    return seen


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _watcher(seen: Histograms, row: int, known: WeakTensorKeyDictionary) -> Any:
    """A hook that adds a layer's input to `row`; `known` holds what living tensors came to, by version."""

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not args or not isinstance(args[0], Tensor):
            raise SuiteError(
                f"layer {seen.names[row]} gets no tensor as its first argument; leave it out of kinds"
            )
        x = args[0]
        version = None if x.is_inference() else x._version
        if x not in known or version is None or known[x][0] != version:
            try:
                known[x] = (version, *count(x))
            except SuiteError as error:
                raise SuiteError(f"the input of layer {seen.names[row]}: {error}") from None
        _, counts, low, high = known[x]
        seen.counts[row, : len(counts)] += counts.to(seen.counts.device)
        seen.low[row] = torch.minimum(seen.low[row], low.to(seen.low.device))
        seen.high[row] = torch.maximum(seen.high[row], high.to(seen.high.device))

    return watch


def count(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(int64 counts by bfloat16 bit pattern, float32 min, float32 max) of a tensor of any shape and float dtype.

    The counts are [32768] where no value is negative, else [65536]; -0.0 counts as 0. Raises SuiteError where the
    tensor is empty or holds inf or NaN.
    """
    if x.numel() == 0:
        raise SuiteError(f"an empty tensor of shape {list(x.shape)} has no range to observe")
    x = x.detach()
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)  # as it lies in memory: flattened without a copy
    flat = x.flatten()
    low, high = (value.float() for value in torch.aminmax(flat))
    if not (low.isfinite() and high.isfinite()):
        raise not_finite("it")
    patterns = flat.to(torch.bfloat16, copy=True).view(torch.int16)
    half = PATTERNS // 2
    if low >= 0:  # bincount takes int16 as it is
        return torch.bincount(patterns.bitwise_and_(half - 1), minlength=half), low, high
    counts = torch.bincount(patterns.int().bitwise_and_(PATTERNS - 1), minlength=PATTERNS)
    counts[0] += counts[half]
    counts[half] = 0
    return counts, low, high
