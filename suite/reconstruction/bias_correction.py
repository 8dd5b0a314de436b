"""What rounding moved in the mean of a layer's output is taken from its bias (Nagel et al. 2019, arXiv 1906.04721)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from suite.networks.graph import BATCH_NORM, Tracer
from suite.quantizers.batch_norm import fold
from suite.quantizers.block_inputs import BlockInput
from suite.quantizers.layers import Quantized
from suite.recipe.errors import SuiteError
from suite.reconstruction.network_learning import FORWARD_BATCH, error_of, values
from suite.reconstruction.units import Part, parts_of


class Correction:
    """Of a `model` whose weights are rounded, against the float `reference` that it was made of."""

    def __init__(self, model: nn.Module, reference: nn.Module, guarded: bool) -> None:
        self.model, self.guarded = model.eval(), guarded
        self.parts = parts_of(model, "block")
        has_norm = any(isinstance(module, BATCH_NORM) for module in model.modules())
        self.float = _float_copy(model, reference if has_norm else fold(copy.deepcopy(reference)))

    def run(self, images: Tensor, shifts: Mapping[str, Tensor] | None = None) -> list[dict[str, Any]]:
        """Correct layer after layer: by `shifts`, float64 [channels] of each layer's output, or else by what the
        images, float32 [n, channels, height, width], show.

        Returns of each layer its name, the error of its part before and after, and whether it was corrected. A layer
        that several parts call is corrected once, by its first call, and the error is that behind the last of them.
        """
        found: dict[str, dict[str, Any]] = {}
        quantized = in_float = images
        for number, part in enumerate(self.parts):
            target = values(self.float, part.nodes, part.input, part.output, in_float)
            for name in (name for unit in part.units for name in unit.layers):
                if name in found or (shifts is not None and name not in shifts):
                    continue
                shift = self._shift(part, name, quantized, in_float) if shifts is None else shifts[name]
                span, wanted = self._span(number, name), target
                if span is not part:
                    wanted = values(self.float, span.nodes, span.input, span.output, in_float)
                found[name] = self._correct(span, name, shift, quantized, wanted)
            quantized = values(self.model, part.nodes, part.input, part.output, quantized)
            in_float = target
        return [*found.values()]

    def _span(self, first: int, name: str) -> Part:
        """From the part of number `first` to the last one that calls the layer."""
        calling = [n for n, part in enumerate(self.parts) if any(name in unit.layers for unit in part.units)]
        parts = self.parts[first : calling[-1] + 1]
        nodes = tuple(node for part in parts for node in part.nodes)
        return parts[0] if len(parts) == 1 else Part(parts[0].input, parts[-1].output, nodes, ())

    def _shift(self, part: Part, name: str, quantized: Tensor, in_float: Tensor) -> Tensor:
        """The mean over images and positions of the layer's output, quantized minus float; float64 [channels]."""
        node = next(node for node in part.nodes if node.op == "call_module" and node.target == name)
        means = []
        for model, x in ((self.model, quantized), (self.float, in_float)):
            y = values(model, part.nodes, part.input, node, x)
            dim = 1 if isinstance(self._layer(name).layer, nn.modules.conv._ConvNd) else y.dim() - 1
            sums = [
                some.double().transpose(0, dim).flatten(1).sum(1) for some in torch.split(y, FORWARD_BATCH)
            ]
            means.append(torch.stack(sums).sum(0) / (y.numel() // y.shape[dim]))
            del y
        return means[0] - means[1]

    @torch.no_grad()
    def _correct(self, part: Part, name: str, shift: Tensor, x: Tensor, target: Tensor) -> dict[str, Any]:
        layer = self._layer(name).layer
        before = error_of(self.model, part, x, target)
        old = layer.bias
        assert isinstance(layer.weight, Tensor) and (old is None or isinstance(old, Tensor))
        start = layer.weight.new_zeros(len(shift)) if old is None else old.detach()
        layer.bias = nn.Parameter((start.double() - shift.to(start.device)).to(start.dtype))
        after = error_of(self.model, part, x, target)
        corrected = after <= before or not self.guarded
        if not corrected:
            layer.bias = old
        return {"layer": name, "error_before": before, "error": after, "corrected": corrected}

    def _layer(self, name: str) -> Quantized:
        layer = self.model.get_submodule(name)
        assert isinstance(layer, Quantized)
        return layer

    def expected_shifts(self, reference: nn.Module) -> dict[str, Tensor]:
        """What rounding the weights moves in the mean of each output, float64 [channels], without images.

        Of each layer whose input comes from BatchNorm, through ReLU or directly: there a channel is taken for normal,
        with the mean and the deviation that BatchNorm's bias and weight say. `reference`: with BatchNorm. Borders are
        taken to be as the rest. Of other layers, such as those behind an addition, nothing is known.
        """
        found = {}
        for name, mean in expected_inputs(reference).items():
            layer, exact = self._layer(name).layer, self.float.get_submodule(name)
            assert isinstance(exact, Quantized)
            rounded, weight = layer.weight, exact.layer.weight
            assert isinstance(rounded, Tensor) and isinstance(weight, Tensor)
            moved = rounded.detach().double() - weight.detach().double()
            moved = moved.flatten(2).sum(2) if moved.dim() > 2 else moved
            groups = getattr(layer, "groups", 1)
            each = mean.double().reshape(groups, -1).repeat_interleave(len(moved) // groups, dim=0)
            found[name] = (moved * each).sum(1)
        return found


def expected_inputs(network: nn.Module) -> dict[str, Tensor]:
    """The expected input of each layer that gets a BatchNorm's output or its ReLU, float32 [channels], by name."""
    found = {}
    for node in Tracer((Quantized,)).trace(network).nodes:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            continue
        given = node.all_input_nodes[0]
        is_relu = _is_relu(network, given)
        source = given.all_input_nodes[0] if is_relu else given
        norm = network.get_submodule(str(source.target)) if source.op == "call_module" else None
        if isinstance(norm, BATCH_NORM) and norm.weight is not None and norm.num_features == _inputs(module):
            mean, deviation = norm.bias.detach(), norm.weight.detach().abs()
            found[str(node.target)] = mean_of_relu(mean, deviation) if is_relu else mean
    return found


def check_expected(network: nn.Module) -> None:
    """Raise SuiteError where no layer of the network, before BatchNorm is folded, gets a BatchNorm's output."""
    if not expected_inputs(network):
        raise SuiteError(
            "biases cannot be corrected analytically: no layer of the network gets its input from a BatchNorm, "
            "directly or through ReLU, so that nothing is known of it; use CorrectBias('empirical'), as in "
            "bias_correction"
        )


def mean_of_relu(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[max(x, 0)] of normal x: mean (1 - Phi(-mean / deviation)) + deviation phi(-mean / deviation)."""
    ratio = mean / deviation.clamp_min(torch.finfo(mean.dtype).tiny)
    below = 0.5 * (1 + torch.erf(-ratio / math.sqrt(2)))
    density = torch.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    return mean * (1 - below) + deviation * density


def _is_relu(network: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), nn.ReLU)
    return node.target in {nn.functional.relu, torch.relu, "relu", "relu_"}


def _inputs(layer: nn.Module) -> int:
    return int(getattr(layer, "in_channels", getattr(layer, "in_features", 0)))


@torch.no_grad()
def _float_copy(model: nn.Module, reference: nn.Module) -> nn.Module:
    """A copy of the model with the weights and biases of the reference and without quantizers."""
    copied = copy.deepcopy(model)
    for name, layer in copied.named_modules():
        if isinstance(layer, Quantized):
            layer.input = layer.weight = None
            if isinstance(layer, BlockInput):
                continue
            try:
                layer.layer = copy.deepcopy(reference.get_submodule(name))
            except AttributeError:
                raise SuiteError(f"the float network has no layer {name!r} to correct the bias of") from None
    return copied
