"""What each step of a recipe changed, layer by layer: the weight that multiplies, the bias, the step of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suite.quantizers.layers import LAYERS, Quantized, layer_of
from suite.quantizers.quantizer import Quantizer
from suite.quantizers.wrappers import unwrapped


@dataclass(frozen=True)
class State:
    """Of one layer: what it multiplies by, float32 in the weight's shape, its bias, zeros where it has none, and the
    scale of its input, None where it has none yet."""

    weight: Tensor
    bias: Tensor
    input_scale: Tensor | None


class StepChanges:
    """Of a model, from the float `network` on; `layers` has for each layer a record of each step that changed it."""

    def __init__(self, network: nn.Module) -> None:
        self.layers: dict[str, list[dict[str, Any]]] = {}
        self._last = states(network)

    def applied(self, step: object, model: nn.Module) -> None:
        """To be called after each step."""
        now = states(model)
        for name, state in now.items():
            changed = _difference(self._last.get(name), state)
            if changed:
                self.layers.setdefault(name, []).append({"step": type(step).__name__, **changed})
        self._last = now


@torch.no_grad()
def states(model: nn.Module) -> dict[str, State]:
    """Of each layer of `model` that multiplies in torch's float kernels, by name. Watches nothing and changes nothing:
    a weight counts as rounded once its range is fixed."""
    model = unwrapped(model)
    held = {id(module.layer) for module in model.modules() if isinstance(module, Quantized)}
    found = {}
    for name, module in model.named_modules():
        layer = layer_of(module)
        weight = getattr(layer, "weight", None)
        if id(module) in held or not isinstance(layer, LAYERS) or not isinstance(weight, Tensor):
            continue
        scale, bias = None, getattr(layer, "bias", None)
        if isinstance(module, Quantized):
            if isinstance(module.weight, Quantizer) and module.weight.mode == "frozen":
                weight = module.weight(weight)
            if isinstance(module.input, Quantizer) and module.input.mode == "frozen":
                scale = module.input.scale.detach().clone()
        bias = (
            bias.detach().float().clone()
            if isinstance(bias, Tensor)
            else weight.new_zeros(len(weight)).float()
        )
        found[name] = State(weight.detach().float().clone(), bias, scale)
    return found


def _difference(before: State | None, now: State) -> dict[str, float]:
    """What changed: of the weight the relative distance and the part of its elements, of the bias the largest change,
    of the input's step the ratio, its mean over channels. Nothing that did not, and nothing of what is not finite."""
    if before is None or before.weight.shape != now.weight.shape:
        return {}
    moved = now.weight - before.weight.to(now.weight.device)
    found = {
        "weight_change": float(
            moved.norm() / before.weight.norm().clamp_min(torch.finfo(torch.float32).tiny)
        ),
        "weights_changed": float((moved != 0).float().mean()),
        "bias_change": float((now.bias - before.bias.to(now.bias.device)).abs().max()),
    }
    if now.input_scale is not None and before.input_scale is not None:
        ratio = float((now.input_scale / before.input_scale.to(now.input_scale.device)).mean())
        found["input_step_ratio"] = ratio if ratio != 1 else 0.0
    elif now.input_scale is not None:
        found["input_step"] = float(now.input_scale.mean())
    return {name: float(f"{value:.6g}") for name, value in found.items() if 0 < abs(value) < float("inf")}
