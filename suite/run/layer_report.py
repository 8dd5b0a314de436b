"""What lies below the accuracy of a quantized network: of each layer that multiplies, how well its weight and its
input survive rounding, how their values are spread and which range was chosen; and which class was taken for which.

SQNR is that of one rounding by itself: 10 log10(sum x^2 / sum (x - q)^2) dB, x what is rounded and q what the layer
multiplies instead.

- Of a weight, x is the last float value: trained where the method trains, with BatchNorm folded in where the method
  folds it in before it rounds.
- Of an input, x is what reaches the quantizer in the quantized network, noise of earlier layers included; where the
  ReLU or the pooling before it rounds too, what they would have given without. Integer kernels never hold it: there x
  is the input of the same layer in the float network.

None where it is not defined: nothing is rounded, all is zero, or inf or NaN is met.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.networks.graph import is_called
from suite.quantizers.layers import LAYERS, RELU_AND_POOL, Quantized, stored_parameters
from suite.quantizers.quantizer import Quantizer
from suite.quantizers.wrappers import unwrapped
from suite.ranges.observers import observe_over
from suite.ranks import Ranks
from suite.recipe import Calibration

BINS = 128
IMAGES = 32
"""Test images, which are at hand, whose activations are measured: six million values a ResNet-20."""

Weights = dict[str, Tensor | None]
Limits = tuple[Tensor, Tensor]
Record = dict[str, Any]


def encoded(content: Record) -> bytes:
    """`content` as compact JSON. Raises ValueError for inf and NaN."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def batch(images: Images | Streamed) -> Tensor:
    """The same IMAGES images, or all where there are fewer, for every method: normalized, in one batch."""
    count = min(IMAGES, len(images))
    (x,) = images.calibration_batches(Calibration(images=count, batch=count))
    return x


def float_weights(network: nn.Module, prepared: nn.Module) -> Weights:
    """The last float value of each weight, by the name of its layer in the float `network`, in the network's order.

    `prepared` is what the method made of it and was fed to, not yet converted. None where it has no such layer.
    """
    found: Weights = {}
    for name, layer in network.named_modules():
        if is_called(layer, LAYERS):
            module = _layer(_held(prepared, name))
            if "weight" in stored_parameters(module):
                module = layer  # rounded already
            weight = getattr(module, "weight", None)
            found[name] = weight.detach().clone() if isinstance(weight, Tensor) else None
    return found


@torch.no_grad()
def layers(
    network: nn.Module,
    weights: Weights,
    model: nn.Module,
    batch: Tensor | None,
    changes: Mapping[str, Sequence[Record]] = MappingProxyType({}),
) -> Record:
    """The record of every layer of the float `network` in `model`, what the method made of it.

    `weights` as `float_weights` gives them; `batch` normalized images [n, 3, size, size], None to leave out the
    inputs; `changes` what each step changed, by layer. Runs both models, evaluating, on this rank
    alone: `model` must have been evaluated and saved before.
    """
    network.eval()
    observe_over(model.eval(), Ranks())
    inputs = _inputs(network, model, list(weights), batch) if batch is not None else {}
    records = [
        {
            "name": name,
            "weight": _weight_record(weight, _held(model, name)),
            "input": inputs.get(name),
            "steps": list(changes.get(name, ())),
        }
        for name, weight in weights.items()
    ]
    return {"format": 1, "images": 0 if batch is None else len(batch), "layers": records}


def confusion(labels: Tensor, predicted: Tensor, classes: int, names: Sequence[str] | None) -> Record:
    """How many images of each class were taken for each: `rows` has for each true class the images by predicted class,
    zeros left out, so that ImageNet's million cells are at most 50,000.

    labels and predicted: int64 [images]; a prediction of -1 is counted nowhere.
    """
    known = predicted >= 0
    cells = (labels.to(predicted.device)[known] * classes + predicted[known]).bincount(minlength=classes**2)
    rows: list[dict[str, int]] = [{} for _ in range(classes)]
    met = cells.nonzero()[:, 0]
    for cell, count in zip(met.tolist(), cells[met].tolist(), strict=True):
        rows[cell // classes][str(cell % classes)] = count
    # A head of 1000 outputs for ten classes: the rest has numbers for names.
    named = [*names, *map(str, range(len(names), classes))] if names and len(names) <= classes else None
    return {"format": 1, "names": named, "rows": rows}


def _held(model: nn.Module, name: str) -> nn.Module | None:
    """The module of `model` in the position of the float network's layer `name`."""
    try:
        return unwrapped(model).get_submodule(name)
    except AttributeError:
        return None


def _layer(module: nn.Module | None) -> nn.Module | None:
    """The layer that `module` is or holds; one that torch.ao fused with its ReLU is the first of a Sequential."""
    if isinstance(module, Quantized):
        return module.layer
    return module[0] if isinstance(module, nn.Sequential) else module


def _weight_record(x: Tensor | None, module: nn.Module | None) -> Record | None:
    layer = _layer(module)
    q = getattr(layer, "weight", None)
    if isinstance(module, Quantized) and module.weight is not None:  # not baked in
        return _record(x, module.weight(q), _range_of(module.weight)) if x is not None else None
    stored = stored_parameters(layer).get("weight")
    limits = stored.limits if stored else None
    if callable(q):  # a packed one of torch.ao
        q = q()
        q, limits = q.dequantize(), _integer_range(q)
    return _record(x, q, limits) if x is not None and isinstance(q, Tensor) else None


def _inputs(
    network: nn.Module, model: nn.Module, names: list[str], batch: Tensor
) -> dict[str, Record | None]:
    found: dict[str, Record | None] = {}
    integers: dict[str, Tensor] = {}
    passed_on: deque[tuple[Tensor, Tensor]] = deque(maxlen=4)  # as far back as a shortcut reaches

    def rounded_before(module: Quantized, args: tuple[Tensor, ...], q: Tensor) -> None:
        passed_on.append((q, module.layer(args[0].clone())))

    def rounded(name: str, quantizer: Quantizer, args: tuple[Tensor, ...], q: Tensor) -> None:
        x = args[0]
        for given, unrounded in passed_on:
            if given.data_ptr() == x.data_ptr() and given.numel() == x.numel():
                x = unrounded.view_as(x)
        found[name] = _record(x, q, _range_of(quantizer))

    def passed(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        (q,) = args
        if q.is_quantized:
            integers[name] = q[:0]  # its grid, without its values
        else:  # what the first layer gets may have been cast
            found[name] = _record(batch if name == names[0] else q, q, None)

    def in_float(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x, grid = args[0].float().cpu(), integers[name]
        q = torch.quantize_per_tensor(x, grid.q_scale(), grid.q_zero_point(), grid.dtype)
        found[name] = _record(x, q.dequantize(), _integer_range(grid))

    hooks = [
        module.register_forward_hook(rounded_before)
        for module in model.modules()
        if isinstance(module, Quantized) and isinstance(module.layer, RELU_AND_POOL)
    ]
    for name in names:
        module = _held(model, name)
        if isinstance(module, Quantized) and module.input is not None:
            hooks.append(module.input.register_forward_hook(partial(rounded, name)))
        elif module is not None:
            hooks.append(module.register_forward_pre_hook(partial(passed, name)))
    model(batch)
    for hook in hooks:
        hook.remove()
    if integers:
        for name in integers:
            network.get_submodule(name).register_forward_pre_hook(partial(in_float, name))
        network(batch)
    return found


def _range_of(quantizer: Quantizer) -> Limits:
    return quantizer.grid.limits(quantizer.scale, quantizer.zero_point)


def _integer_range(q: Tensor) -> Limits:
    """The ends of the grid of a quantized tensor of torch's, of each channel or of all."""
    if q.qscheme() == torch.per_tensor_affine:
        scale, zero_point = torch.tensor(q.q_scale()), torch.tensor(q.q_zero_point())
    else:
        scale, zero_point = q.q_per_channel_scales(), q.q_per_channel_zero_points()
    ends = torch.iinfo(q.int_repr().dtype)
    return (ends.min - zero_point) * scale, (ends.max - zero_point) * scale


def _record(x: Tensor, q: Tensor, limits: Limits | None) -> Record | None:
    """What is kept of one rounding of `x` to `q`, of any shape and float dtype; `limits` the ends of the grid."""
    x, q = x.detach().float(), q.detach().float().to(x.device)
    if x.shape != q.shape or not x.numel():
        return None
    return {"sqnr_db": _sqnr_db(x, q), "range": _span(limits), "histogram": _histogram(x)}


def _sqnr_db(x: Tensor, q: Tensor) -> float | None:
    signal, noise = (float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in (x, x - q))
    if not (0 < signal < math.inf and 0 < noise < math.inf):
        return None
    return round(20 * math.log10(signal / noise), 4)


def _span(limits: Limits | None) -> dict[str, list[float]] | None:
    """Each end of the grid: the smallest and the largest over channels."""
    if limits is None:
        return None
    low, high = ([_short(value) for value in torch.aminmax(end.float())] for end in limits)
    return {"low": low, "high": high} if all(map(math.isfinite, low + high)) else None


def _histogram(x: Tensor) -> Record | None:
    """BINS equal bins from the smallest value to the largest, int counts."""
    low, high = (float(end) for end in torch.aminmax(x))
    if not math.isfinite(high - low):
        return None
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)  # as it lies in memory: flattened without a copy
    bins = (x.flatten() - low).mul_(BINS / (high - low) if high > low else 0.0).clamp_(0, BINS - 1)
    counts = torch.bincount(bins.to(torch.uint8), minlength=BINS)  # of small integers, which is fastest
    return {"low": _short(low), "high": _short(high), "counts": counts.tolist()}


def _short(value: float | Tensor) -> float:
    """Six digits, as many as a float32 has."""
    return float(f"{float(value):.6g}")
