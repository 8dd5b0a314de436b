"""Traces of the Hessian of the loss, by Hutchinson's estimator (HAWQ-V2, Dong et al. 2020, arXiv 1911.03852).

E[v' H v] = tr(H) for v of independent random signs. Each tensor is probed by itself: one second derivative could serve
all of them, but then the products across tensors, zero in the mean, are in the variance. With as many samples the
standard error of a layer of a ResNet-20 was three to six times as large, which takes up to 40 times the samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from suite.sensitivity.offsets import loss_of, offset


@dataclass(frozen=True)
class Trace:
    """A trace of the Hessian of the mean loss of an image, its standard error (NaN of one sample), and of how many
    numbers the tensor is; of an input, those of one image."""

    trace: float
    standard_error: float
    size: int


def traces(
    model: nn.Module,
    names: Sequence[str],
    batches: Iterable[tuple[Tensor, Tensor]],
    probes: int,
    seed: int = 0,
) -> dict[tuple[str, str], Trace]:
    """By (layer, "weight" or "input"): the traces of the layers `names` of `model`, evaluating, over `batches` of
    images, float32 [n, channels, height, width], and labels, int64 [n], each with as many random `probes`. A layer
    that computes nothing is left out. seed: of the probes."""
    generator = torch.Generator().manual_seed(seed)
    samples: dict[tuple[str, str], list[float]] = {}
    sizes: dict[tuple[str, str], int] = {}
    with torch.enable_grad(), offset(model, names) as calls:
        weights: dict[str, Tensor] = {name: model.get_submodule(name).layer.weight for name in names}  # type: ignore[misc,union-attr]
        for x, labels in batches:
            loss = loss_of(model(x), labels)
            wanted = {(name, "weight"): [weights[name]] for name in names if calls.of[name]}
            wanted |= {(name, "input"): [call.input_offset for call in calls.of[name]] for name, _ in wanted}
            sizes |= {
                tensor_name: _size(tensor_name, tensors, len(x)) for tensor_name, tensors in wanted.items()
            }
            flat = [tensor for tensors in wanted.values() for tensor in tensors]
            firsts = iter(torch.autograd.grad(loss, flat, create_graph=True, materialize_grads=True))
            for tensor_name, tensors in wanted.items():
                first = [next(firsts) for _ in tensors]
                found = samples.setdefault(tensor_name, [])
                found += [_sample(first, tensors, generator) / len(x) for _ in range(probes)]
            calls.clear()
    return {tensor_name: _trace(values, sizes[tensor_name]) for tensor_name, values in samples.items()}


def _size(tensor_name: tuple[str, str], tensors: Sequence[Tensor], images: int) -> int:
    numbers = sum(tensor.numel() for tensor in tensors)
    return numbers if tensor_name[1] == "weight" else numbers // images


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU, so that they are the same on every device."""
    drawn = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return drawn.to(like.device).to(like.dtype).mul_(2).sub_(1)


def _sample(first: Sequence[Tensor], tensors: Sequence[Tensor], generator: torch.Generator) -> float:
    """Random signs times the Hessian times the signs; `first` are the gradients of the `tensors`. A gradient without
    history is constant: its second derivative is zero."""
    signs = [_signs(tensor, generator) for tensor in tensors]
    known = [(one, sign) for one, sign in zip(first, signs, strict=True) if one.requires_grad]
    if not known:
        return 0.0
    ones, along = zip(*known, strict=True)
    second = torch.autograd.grad(ones, tensors, along, retain_graph=True, materialize_grads=True)
    return sum(float((one * sign).sum(dtype=torch.float64)) for one, sign in zip(second, signs, strict=True))


def _trace(values: list[float], size: int) -> Trace:
    mean, count = math.fsum(values) / len(values), len(values)
    spread = math.fsum((value - mean) ** 2 for value in values) / (count - 1) if count > 1 else math.nan
    return Trace(mean, math.sqrt(spread / count), size)
