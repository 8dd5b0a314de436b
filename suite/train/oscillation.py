"""Weights that oscillate between two levels while training, and two ways to stop that (arXiv 2203.11086).

Damping draws a weight towards its level; freezing keeps one that jumps too often where it was on average. Both are of
weights whose step sizes learn (LSQ).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import by_channel
from suite.learned.lsq import Lsq
from suite.quantizers.layers import Quantized
from suite.recipe.errors import SuiteError
from suite.recipe.settings import Damping, Freezing

KEPT = ("level", "mean", "direction", "jumps", "frozen")
"""Of each weight, in its shape, in buffers of its quantizer: the integer it is rounded to; the running mean of it; the
sign of its last change; how often that turns, a running mean; and whether it is frozen, at round(mean)."""


class OscillationControl:
    """Damping, freezing or both, as `fit` applies them: `penalty` is added to the loss, `after_step` changes the
    weights."""

    def __init__(self, damping: Damping | None, freezing: Freezing | None) -> None:
        self.damping, self.freezing = damping, freezing

    def begin(self, model: nn.Module) -> None:
        """Before training. Raises SuiteError where no weight of `model` has a step size that learns, and where all
        have too many bits to freeze."""
        if not any(True for _ in _weights(model)):
            raise SuiteError(
                "damping and freezing are of weights whose step sizes learn; use them with lsq, lsq_plus, or with Lsq "
                "as the weights of a Scheme"
            )
        if self.freezing and not any(True for _ in self._tracked(model)):
            raise SuiteError(
                f"freezing is of weights of at most {self.freezing.max_bits} bits, and none has so few; raise max_bits"
            )
        for quantizer, weight in self._tracked(model):
            level = _levels(quantizer, weight)
            for name in KEPT:
                start = level if name in ("level", "mean") else torch.zeros_like(level)
                quantizer.register_buffer(name, start.bool() if name == "frozen" else start.clone())

    def end(self, model: nn.Module) -> None:
        """After training: what was kept is gone."""
        for quantizer, _ in self._tracked(model):
            for name in KEPT:
                delattr(quantizer, name)

    def penalty(self, working: nn.Module, part: float) -> Tensor | None:
        """Strength times the squared distance of each weight to its level, where it is not clipped, summed over the
        output channels of a layer and averaged over the rest, as the authors' default `kernel_mean`; summed over the
        layers: float32 []. The level gets no gradient. None where nothing is added.
        """
        strength = self.damping and self.damping.strength * rising(part, self.damping.begin)
        if not strength:
            return None
        of_layers = []
        for quantizer, weight in _weights(working):
            scale, grid = _scale(quantizer, weight), quantizer.grid
            inside = weight.float().clamp(*(scale * end for end in (grid.quant_min, grid.quant_max)))
            level = _levels(quantizer, weight) * scale
            of_layers.append((level - inside).square().sum(0).mean())
        return strength * torch.stack(of_layers).sum()

    @torch.no_grad()
    def after_step(self, working: nn.Module, stepped: nn.Module, part: float) -> None:
        """Count what the optimizer changed in the weights of `stepped`, and put back what is frozen.

        The counts are buffers of `working`, which may hold copies of the weights.
        """
        if self.freezing is None:
            return
        how = self.freezing
        share = rising(part, how.begin)
        threshold = how.first_threshold + (how.threshold - how.first_threshold) * share
        pairs = zip(self._tracked(working), self._tracked(stepped), strict=True)
        for (quantizer, copied), (own, weight) in pairs:
            level, mean, direction, jumps, frozen = (getattr(quantizer, name) for name in KEPT)
            now = _levels(own, weight)
            change = (now - level).sign()
            jumps.lerp_((change * direction < 0).to(jumps.dtype), how.momentum)
            mean.copy_(torch.where(frozen, mean, mean.lerp(now, how.momentum)))
            direction.copy_(torch.where(change == 0, direction, change))
            if part >= how.begin:
                fresh = (jumps > threshold) & ~frozen
                mean.copy_(torch.where(fresh, mean.round(), mean))
                frozen |= fresh
            level.copy_(torch.where(frozen, mean, now))
            weight.copy_(torch.where(frozen, mean * _scale(own, weight), weight))
            if copied is not weight:
                copied.copy_(weight)

    def _tracked(self, model: nn.Module) -> Iterator[tuple[Lsq, Tensor]]:
        """Those of `model` whose weights may freeze."""
        for quantizer, weight in _weights(model) if self.freezing else ():
            if self.freezing and quantizer.grid.bits <= self.freezing.max_bits:
                yield quantizer, weight


def rising(part: float, begin: float) -> float:
    """0 until the part `begin` of a training, then by half a cosine to 1 at its end."""
    return (1 - math.cos(math.pi * max(0.0, part - begin) / (1 - begin))) / 2


def _weights(model: nn.Module) -> Iterator[tuple[Lsq, Tensor]]:
    for module in model.modules():
        if isinstance(module, Quantized) and isinstance(module.weight, Lsq):
            weight = module.layer.weight
            assert isinstance(weight, Tensor)
            yield module.weight, weight


def _scale(quantizer: Lsq, weight: Tensor) -> Tensor:
    return by_channel(quantizer.in_effect("scale").detach(), weight, quantizer.axis)


def _levels(quantizer: Lsq, weight: Tensor) -> Tensor:
    """The integers that a weight is rounded to, float32, as `lsq` finds them."""
    grid = quantizer.grid
    steps = weight.detach().float() * _scale(quantizer, weight).reciprocal()
    return steps.clamp(grid.quant_min, grid.quant_max).round()
