"""Traces of the Hessian of the loss (HAWQ-V2, Dong et al. 2020, arXiv 1911.03852), of all tensors by one derivative.

With respect to a tensor, the cross entropy has the Hessian J' (diag(p) - pp') J plus a part with the second
derivatives of the logits; J are their first derivatives, p the probabilities. That part is zero where the logits are
piecewise linear in the tensor: in the weight or the input of one layer of a network of ReLUs in evaluation. Of other
networks, such as those with GELU, it is left out (Gauss-Newton); it vanishes where a network is sure of its answers.

Where A A' = diag(p) - pp' and the signs e are random, E[|J' A e|^2] is the trace. J' A e is the derivative of one sum
of the logits with respect to the tensors of all layers at once. It needs no label, and no sample is below zero. HAWQ
has Hutchinson's E[v' H v], with v of random signs. That takes a second derivative for each tensor, half a minute
instead of a second for a ResNet-20 and 256 images; with one for all tensors, the products across tensors are in its
variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from suite.sensitivity.offsets import offset

TOGETHER = 8
"""Images that give one sample of a trace: enough to compute fast, and few, so that 256 images give 32 samples."""


@dataclass(frozen=True)
class Trace:
    """A trace of the Hessian of the mean loss of an image, its standard error over the images (NaN of one sample), and
    of how many numbers the tensor is; of an input, those of one image."""

    trace: float
    standard_error: float
    size: int


def traces(
    model: nn.Module,
    names: Sequence[str],
    batches: Iterable[Tensor],
    probes: int,
    seed: int = 0,
) -> dict[tuple[str, str], Trace]:
    """By (layer, "weight" or "input"): the traces of the layers `names` of `model`, evaluating, over `batches` of
    images, float32 [n, channels, height, width], each with as many random `probes`. A layer that computes nothing is
    left out. seed: of the probes."""
    generator = torch.Generator().manual_seed(seed)
    samples: dict[tuple[str, str], list[tuple[float, int]]] = {}
    sizes: dict[tuple[str, str], int] = {}
    with torch.enable_grad(), _sound_kernels(model), offset(model, names) as calls:
        weights: dict[str, Tensor] = {name: model.get_submodule(name).layer.weight for name in names}  # type: ignore[misc,union-attr]
        for x in (part for batch in batches for part in torch.split(batch, TOGETHER)):
            logits = model(x)
            wanted = {(name, "weight"): [weights[name]] for name in names if calls.of[name]}
            wanted |= {(name, "input"): [call.input_offset for call in calls.of[name]] for name, _ in wanted}
            sizes |= {
                tensor_name: _size(tensor_name, tensors, len(x)) for tensor_name, tensors in wanted.items()
            }
            found = [_squares(logits, list(wanted.values()), generator) for _ in range(probes)]
            for place, tensor_name in enumerate(wanted):
                mean = math.fsum(squares[place] for squares in found) / probes
                samples.setdefault(tensor_name, []).append((mean, len(x)))
            calls.clear()
    return {tensor_name: _trace(values, sizes[tensor_name]) for tensor_name, values in samples.items()}


def _sound_kernels(model: nn.Module) -> AbstractContextManager[None]:
    """Without oneDNN where its derivative by a weight writes beyond its end, which ends the process: that of a 1x1
    convolution with a stride and fewer than 8 input channels, on a processor with AVX2 alone (torch 2.13)."""
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
            continue
        if module.in_channels // module.groups < 8:
            return torch.backends.mkldnn.flags(enabled=False)
    return nullcontext()


def _size(tensor_name: tuple[str, str], tensors: Sequence[Tensor], images: int) -> int:
    numbers = sum(tensor.numel() for tensor in tensors)
    return numbers if tensor_name[1] == "weight" else numbers // images


def _squares(logits: Tensor, wanted: Sequence[Sequence[Tensor]], generator: torch.Generator) -> list[float]:
    """|J' A e|^2 of each of `wanted`, summed over the images: of a weight, the products of two images are zero in the
    mean, since each has signs of its own. The signs are drawn on the CPU, the same for every device."""
    signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits.device) * 2 - 1
    roots = logits.detach().double().softmax(1).sqrt()
    drawn = roots * signs
    direction = drawn - roots.square() * drawn.sum(1, keepdim=True)
    flat = [tensor for tensors in wanted for tensor in tensors]
    if not flat:
        return []
    slopes = iter(
        torch.autograd.grad(
            logits, flat, direction.to(logits.dtype), retain_graph=True, materialize_grads=True
        )
    )
    return [sum(float(next(slopes).square().sum(dtype=torch.float64)) for _ in tensors) for tensors in wanted]


def _trace(values: Sequence[tuple[float, int]], size: int) -> Trace:
    """Of samples, each summed over so many images."""
    images, count = sum(number for _, number in values), len(values)
    mean = math.fsum(value for value, _ in values) / images
    if count == 1:
        return Trace(mean, math.nan, size)
    spread = math.fsum((value - mean * number) ** 2 for value, number in values)
    return Trace(mean, math.sqrt(spread * count / (count - 1)) / images, size)
