"""What rounding each tensor of a network costs: four scores that are computed of the float network, and the truth.

A network is rounded at each width as a whole, by the method that is asked about; one layer's weight or input of it
takes the place of the float one, or the other way round.

- noise: |error of the layer's output|^2 / |output|^2, both summed over the images.
- logits: the sum over an image's output of error^2 * (dlogit/doutput)^2, summed over the logits, mean over images:
  what the logits change by, squared, were the errors independent. Random signs of the logits stand for their sum.
  It needs no label, and does not vanish where the network is sure of its answers, as on its training images.
- gradient: the sum over an image's output of error^2 * (dloss/doutput)^2, mean over images (NVIDIA ModelOpt's score).
- hessian: tr(H) / size * |error of the tensor|^2, of an input mean over images (HAWQ-V2, arXiv 1911.03852, and V3,
  2011.10680).
- loss and top-1 with that one tensor rounded and all else float, and with all rounded but that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from suite.quantizers.layers import Quantized, layer_of, stored_parameters
from suite.sensitivity.hessian import Trace
from suite.sensitivity.offsets import Call, Calls, loss_of, moved_by_input, moved_by_weight, offset

Batches = Sequence[tuple[Tensor, Tensor]]
"""Normalized images and labels."""

HELD = 1 << 27
"""Numbers that all layers together take and give for the images that are computed at once, at most, where there is
more than one image: with their derivatives 3 GB of a ResNet-50."""

Tick = Callable[[float, str], None]
"""Called with the part, 0 to 1, that is done, and with what is being done."""


@dataclass(frozen=True)
class Cost:
    """What rounding one `tensor`, "weight" or "input", of one `layer` to `bits` costs; None where it was not measured.

    Losses are mean cross entropy an image, top-1 in percent.
    """

    layer: str
    tensor: str
    bits: int
    noise: float
    logits: float | None = None
    gradient: float | None = None
    error: float = 0.0
    """|error of the tensor|^2, of an input mean over images."""
    hessian: float | None = None
    hessian_standard_error: float | None = None
    loss_alone: float | None = None
    top1_alone: float | None = None
    loss_all_but: float | None = None
    top1_all_but: float | None = None


@dataclass(frozen=True)
class Result:
    """Of a whole network on some images."""

    loss: float
    top1: float


class Rounded:
    """A float `network`, and what a method made of it at each width: `at` has by bits the network with its weights
    rounded for good. `names` are the layers in question."""

    def __init__(self, network: nn.Module, at: Mapping[int, nn.Module], names: Sequence[str]) -> None:
        self.network, self.at, self.names = network.eval(), at, tuple(names)
        for model in at.values():
            model.eval()

    def tensors(self, name: str, bits: int) -> list[str]:
        """Which tensors of a layer are rounded at that width."""
        held = self.at[bits].get_submodule(name)
        has_weight = "weight" in stored_parameters(layer_of(held))
        has_input = isinstance(held, Quantized) and held.input is not None
        return ["weight"] * has_weight + ["input"] * has_input

    def with_tensor(self, name: str, tensor: str, bits: int) -> nn.Module:
        """The layer with that tensor alone rounded."""
        held = self.at[bits].get_submodule(name)
        if tensor == "weight":
            return layer_of(held)
        assert isinstance(held, Quantized)
        return Quantized(self.network.get_submodule(name), held.input, None)

    def without_tensor(self, name: str, tensor: str, bits: int) -> nn.Module:
        """The layer with all that is rounded but that tensor."""
        held = self.at[bits].get_submodule(name)
        if tensor == "input":
            return layer_of(held)
        float_layer = self.network.get_submodule(name)
        return Quantized(float_layer, held.input, None) if isinstance(held, Quantized) else float_layer


def costs(
    rounded: Rounded, batches: Batches, labelled: bool = True, seed: int = 0, tick: Tick | None = None
) -> list[Cost]:
    """Noise, logits and, where the batches are `labelled`, gradient score, and squared error of every layer, width and
    tensor, in one pass over `batches`. A layer that computes nothing is left out. seed: of the random signs."""
    sums: dict[tuple[str, str, int], Tensor] = {}
    images, generator = 0, torch.Generator().manual_seed(seed)
    with torch.enable_grad(), offset(rounded.network, rounded.names) as calls:
        parts = list(_in_parts(rounded.network, batches, calls))
        for number, (x, labels) in enumerate(parts, start=1):
            logits = rounded.network(x)
            signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits.device) * 2 - 1
            of = {"logits": (logits * signs).sum()}
            if labelled:
                of["gradient"] = loss_of(logits, labels)
            made = [call for name in rounded.names for call in calls.of[name]]
            for what, value in of.items():
                _differentiate(what, value, made)
            images += len(x)
            for name in rounded.names:
                for call in calls.of[name]:
                    _add(sums, rounded, name, call)
            calls.clear()
            if tick:
                tick(number / len(parts), "scores")
    found = []
    for (name, tensor, bits), (noise, signal, by_logits, gradient, error, weight_calls) in sums.items():
        count = images if tensor == "input" else float(weight_calls)
        score = float(gradient) / images if labelled else None
        ratio = float(noise / signal) if signal > 0 else float(noise > 0)
        found.append(
            Cost(name, tensor, bits, ratio, float(by_logits) / images, score, error=float(error) / count)
        )
    return found


@torch.no_grad()
def _in_parts(network: nn.Module, batches: Batches, calls: Calls) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, in parts where they are too large for HELD; without labels, an empty tensor for each."""
    network(batches[0][0][:1])
    numbers = sum(call.input.numel() + call.output.numel() for made in calls.of.values() for call in made)
    calls.clear()
    size = max(1, HELD // max(1, numbers))
    for x, labels in batches:
        some = torch.split(x, size)
        yield from zip(some, torch.split(labels, size) if len(labels) else [labels] * len(some), strict=True)


def _differentiate(what: str, value: Tensor, calls: Sequence[Call]) -> None:
    """Of `value` with respect to the output of each call."""
    if not calls:
        return
    offsets = [call.output_offset for call in calls]
    slopes = torch.autograd.grad(value, offsets, retain_graph=True, materialize_grads=True)
    for call, slope in zip(calls, slopes, strict=True):
        call.slopes[what] = slope


@torch.no_grad()
def _add(sums: dict[tuple[str, str, int], Tensor], rounded: Rounded, name: str, call: Call) -> None:
    layer: Any = rounded.network.get_submodule(name).layer
    weight: Tensor = layer.weight
    for bits in rounded.at:
        held: Any = rounded.at[bits].get_submodule(name)
        for tensor in rounded.tensors(name, bits):
            if tensor == "weight":
                error: Tensor = layer_of(held).weight - weight
                wrong = moved_by_weight(layer, call.input, error)
            else:
                error = held.input(call.input) - call.input
                wrong = moved_by_input(layer, call.input, error)
            slopes = [call.slopes.get(what) for what in ("logits", "gradient")]
            parts = (
                _square(wrong),
                _square(call.output),
                *(torch.zeros(()) if slope is None else _square(wrong * slope) for slope in slopes),
                _square(error),
                torch.ones(()),
            )
            added = torch.stack([part.double().cpu() for part in parts])
            rounded_tensor = name, tensor, bits
            sums[rounded_tensor] = sums[rounded_tensor] + added if rounded_tensor in sums else added


def _square(x: Tensor) -> Tensor:
    return x.square().sum(dtype=torch.float64)


def with_hessian(found: Sequence[Cost], traces: Mapping[tuple[str, str], Trace]) -> list[Cost]:
    """The costs with the Hessian's score and its standard error."""
    whole = []
    for cost in found:
        trace = traces[cost.layer, cost.tensor]
        factor = cost.error / trace.size
        spread = trace.standard_error * factor
        whole.append(
            replace(
                cost,
                hessian=trace.trace * factor,
                hessian_standard_error=spread if spread == spread else None,
            )
        )
    return whole


@torch.no_grad()
def evaluated(model: nn.Module, batches: Batches) -> Result:
    """Mean loss and top-1 in percent."""
    loss, right, images = 0.0, 0, 0
    for x, labels in batches:
        logits = model(x)
        loss += float(loss_of(logits, labels))
        right += int((logits.argmax(1) == labels).sum())
        images += len(x)
    return Result(loss / images, 100 * right / images)


def with_truth(
    rounded: Rounded,
    found: Sequence[Cost],
    batches: Batches,
    all_but: bool = True,
    tick: Tick | None = None,
    known: dict[str, dict[str, Any]] | None = None,
) -> list[Cost]:
    """The costs with loss and top-1 measured: one evaluation for each tensor and width, and with `all_but` two.

    known: what was measured before, which is not measured again; what is measured is added to it, before `tick`.
    """
    known = {} if known is None else known
    whole = []
    for number, cost in enumerate(found, start=1):
        rounded_tensor = f"{cost.layer} {cost.tensor} {cost.bits}"
        if rounded_tensor not in known:
            known[rounded_tensor] = _measured(rounded, cost, batches, all_but)
        whole.append(replace(cost, **known[rounded_tensor]))
        if tick:
            tick(number / len(found), f"{rounded_tensor} bits")
    return whole


def _measured(rounded: Rounded, cost: Cost, batches: Batches, all_but: bool) -> dict[str, Any]:
    rounded_tensor = cost.layer, cost.tensor, cost.bits
    with _in_place(rounded.network, cost.layer, rounded.with_tensor(*rounded_tensor)):
        alone = evaluated(rounded.network, batches)
    values = {"loss_alone": alone.loss, "top1_alone": alone.top1}
    if all_but:
        model = rounded.at[cost.bits]
        with _in_place(model, cost.layer, rounded.without_tensor(*rounded_tensor)):
            rest = evaluated(model, batches)
        values |= {"loss_all_but": rest.loss, "top1_all_but": rest.top1}
    return values


@contextmanager
def _in_place(model: nn.Module, name: str, other: nn.Module) -> Iterator[None]:
    own = model.get_submodule(name)
    model.set_submodule(name, other)
    try:
        yield
    finally:
        model.set_submodule(name, own)
