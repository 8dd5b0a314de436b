"""Units of a quantized network learn to give what those of the float network give, one after the other.

What a unit gets from the quantized units before it, and what it should give, is computed once and kept. The state is
small: what the finished units learned, and the optimizer of the unit at hand; all else is computed again from them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from suite.quantizers.layers import Quantized, stored_parameters
from suite.recipe.errors import SuiteError, not_finite
from suite.recipe.words import counted
from suite.reconstruction.unit_learning import NOTHING, Learning, Settings, restore_bias
from suite.reconstruction.units import Part, Unit, check_apart, parts_of, run

CACHE_BYTES = 1 << 30
"""Of inputs and targets of a unit in float32; where they take more, they are kept in bfloat16."""

FORWARD_BATCH = 128
"""Images at a time where nothing is learned."""

Save = Callable[[Callable[[], dict[str, Any]], float, str], None]
"""Called with a state, the part of 1 that is done, and words for it; see Feed.save of suite.recipe.method."""


class Reconstruction:
    """Of a `model` with quantizers; changes it in place."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        """Raises SuiteError where the model's units are not known or have a layer together, and where its weights are
        rounded already."""
        self.model, self.settings = model.eval(), settings
        self.parts = parts_of(model, settings.unit)
        check_apart(self.parts)
        layers = [module for module in model.modules() if isinstance(module, Quantized)]
        for layer in layers:
            _take_ranges(layer, settings)
        self.float = copy.deepcopy(model)
        for module in self.float.modules():
            if isinstance(module, Quantized):
                module.input = module.weight = None
                restore_bias(module.layer)
        self.inputs = [(layer, layer.input) for layer in layers]
        if (
            settings.learns == "rounding"
        ):  # activations stay float meanwhile, as in AdaRound and in BRECQ's first phase
            for layer in layers:
                layer.input = None
        self.done: list[dict[str, Any]] = []
        """Of each finished unit its record and what it learned."""

    def run(self, images: Tensor, saved: dict[str, Any] | None, save: Save) -> list[dict[str, Any]]:
        """Learn on `images`, on from what `save` was given before.

        Returns of each unit its name, its layers, the part of each layer's weights that are `turned`, not rounded to
        nearest, its error with all rounded to nearest and at the end, and whether what it learned is kept: it is where
        the error became no larger. The error is squared, summed over channels,
        mean over images and places.
        """
        if len(images) < self.settings.batch:
            raise SuiteError(
                f"a reconstruction draws batches of {counted(self.settings.batch, 'image')}, but the calibration has "
                f"only {len(images)}; give more images, or a smaller batch"
            )
        earlier = saved or {"done": [], "at": {}}
        quantized = in_float = images
        for part in self.parts:
            for unit in part.units:
                learning = Learning(self.model, unit, self.settings, number=len(self.done))
                target = None
                if learning.number < len(earlier["done"]):
                    self.done.append(earlier["done"][learning.number])
                    learning.restore(self.done[-1])
                else:
                    at = earlier["at"] if learning.number == len(earlier["done"]) else {}
                    caches = self.caches(part, unit, quantized, in_float)
                    self._learn(learning, caches, at, save)
                    target = caches[2] if unit.nodes == part.nodes else None
                    del caches
            quantized = values(self.model, part.nodes, part.input, part.output, quantized)
            if target is None:
                target = values(self.float, part.nodes, part.input, part.output, in_float)
            in_float = target
        for layer, quantizer in self.inputs:
            layer.input = quantizer
        save(lambda: {"done": self.done, "at": {}}, 1.0, "")
        return [done["record"] for done in self.done]

    def _learn(
        self, learning: Learning, caches: tuple[Tensor, Tensor, Tensor], at: dict[str, Any], save: Save
    ) -> None:
        units = sum(len(part.units) for part in self.parts)
        given, _, target = caches
        if self.settings.fisher:
            learning.weight = self.fisher(learning.unit, given, target)
        nearest = error_of(self.model, learning.unit, given, target)
        began, first = time.monotonic(), at.get("iteration", 0)
        learning.install()
        for iteration in learning.iterations(caches, at):
            inside = iteration / self.settings.iterations
            seconds = (time.monotonic() - began) / max(1, iteration - first)
            left = seconds * self.settings.iterations * (units - learning.number - inside)
            words = f"reconstruct {learning.unit.name}, {learning.number + 1} of {units}"
            words += f", error {nearest:.3g} before, {learning.error:.3g} now, {left:.0f} s left"
            part = min((learning.number + inside) / units, 1 - 1e-6)
            save(lambda: {"done": self.done, "at": learning.state()}, part, words)
        learned = learning.harden()
        error = error_of(self.model, learning.unit, given, target)
        if kept := error <= nearest:
            self.done.append(learned)
        else:
            learning.undo()
            self.done.append(copy.deepcopy(NOTHING))
        record = {"unit": learning.unit.name, "layers": list(learning.unit.layers), "kept": kept}
        record["turned"] = self.done[-1]["turned"]
        self.done[-1]["record"] = {**record, "error_nearest": nearest, "error": error if kept else nearest}

    def fisher(self, unit: Unit, given: Tensor, target: Tensor) -> Tensor:
        """The square of (|g| + 1), of the shape of `target`: g is the gradient of the divergence of the logits from
        those of the float network by the unit's output, rounded to nearest, with all that follows in float.

        As in BRECQ's code, which takes the mean over a batch for the divergence, so that g is small beside 1.
        """
        parts = self.parts
        nodes = [node for part in parts for node in part.nodes]
        nodes, last = nodes[nodes.index(unit.output) + 1 :], parts[-1].output
        found = []
        for some, wanted in zip(*(torch.split(x, self.settings.batch) for x in (given, target)), strict=True):
            with torch.no_grad():
                y = run(self.model, unit.nodes, {unit.input: some.float()}, unit.output)
                expected = run(self.float, nodes, {unit.output: wanted.float()}, last)
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                logits = run(self.float, nodes, {unit.output: y}, last).log_softmax(1)
                divergence = F.kl_div(logits, expected.log_softmax(1), reduction="batchmean", log_target=True)
                (gradient,) = torch.autograd.grad(divergence, y)
            found.append(((gradient.abs() + 1).square()).to(target.dtype))
        return torch.cat(found)

    def caches(
        self, part: Part, unit: Unit, quantized: Tensor, in_float: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(input in the quantized network, input in the float one, target) of a unit, each with the images first."""
        given = values(self.model, part.nodes, part.input, unit.input, quantized)
        wanted = values(self.float, part.nodes, part.input, unit.input, in_float)
        return given, wanted, values(self.float, unit.nodes, unit.input, unit.output, wanted)


@torch.no_grad()
def values(model: nn.Module, nodes: Sequence[fx.Node], given: fx.Node, wanted: fx.Node, x: Tensor) -> Tensor:
    """The value of the node `wanted` of `model` for all images, where the node `given` has the value `x`.

    Raises SuiteError where it holds inf or NaN, and where it is no tensor whose first dimension is that of the batch.
    """
    if given is wanted:
        return x
    found = torch.empty(0)
    for first, some in zip(range(0, len(x), FORWARD_BATCH), torch.split(x, FORWARD_BATCH), strict=True):
        y = run(model, nodes, {given: some.to(torch.float32, copy=True)}, wanted)
        shape = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        if not isinstance(y, Tensor) or y.shape[:1] != some.shape[:1]:
            raise SuiteError(
                f"the output of {wanted.name} has shape {shape} for {counted(len(some), 'image')}; the first "
                f"dimension of what a unit gives must be that of the batch"
            )
        if not y.isfinite().all():
            raise not_finite(f"the output of {wanted.name}")
        if first == 0:  # all at once, since joining them at the end would need twice the memory
            small = 3 * 4 * y[0].numel() * len(x) <= CACHE_BYTES
            dtype = y.dtype if small else torch.bfloat16
            found = y.new_empty((len(x), *y.shape[1:]), dtype=dtype)
            if y.dim() == 4 and y.is_contiguous(memory_format=torch.channels_last):
                found = found.to(memory_format=torch.channels_last)
        found[first : first + len(some)] = y
    return found


@torch.no_grad()
def error_of(model: nn.Module, unit: Unit | Part, x: Tensor, target: Tensor) -> float:
    """The squared error of what the unit gives for `x`, summed over channels, mean over images and places."""
    total = 0.0
    for some, wanted in zip(torch.split(x, FORWARD_BATCH), torch.split(target, FORWARD_BATCH), strict=True):
        y = run(model, unit.nodes, {unit.input: some.to(torch.float32, copy=True)}, unit.output)
        total += float((y - wanted).square().sum(dtype=torch.float64))
    return total * target.shape[1] / target.numel()


def _take_ranges(layer: Quantized, settings: Settings) -> None:
    """Weight and input of the layer are rounded from now on, to the nearest."""
    if layer.weight is None and settings.learns != "steps" and stored_parameters(layer.layer):
        raise SuiteError("the weights are rounded already; a reconstruction comes before Bake")
    if layer.weight is not None and layer.weight.observer is not None:
        weight = layer.layer.weight
        assert isinstance(weight, Tensor)
        layer.weight.observer(weight.detach())
        layer.weight.set_range()
        layer.weight.mode = "frozen"  # and it keeps its observer, which Bake asks once more
        layer.weight(weight.detach())  # one that keeps the size has its step only now
    if layer.input is not None:
        layer.input.freeze()
