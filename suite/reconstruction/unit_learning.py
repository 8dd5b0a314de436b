"""One unit learns the rounding of its weights and the steps of its activations from pairs of input and target."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from suite.quantizers.layers import Quantized
from suite.recipe.errors import SuiteError
from suite.reconstruction.learned_rounding import LearnedRounding, LearnedStep, SquaredError, mixed
from suite.reconstruction.units import Unit, run

CHECK_EVERY = 10
"""Iterations between two at which the error is read."""


NOTHING: dict[str, Any] = {"weights": {}, "weight_scales": {}, "scales": {}, "biases": {}, "turned": {}}
"""What a unit learned that is rounded to the nearest after all; else of each kind by the names of layers."""


@dataclass(frozen=True)
class Settings:
    """As of suite.steps.Reconstruct, which says what each is."""

    unit: Literal["layer", "block", "network"]
    learns: Literal["rounding", "steps", "both"]
    drop: float
    iterations: int
    batch: int
    lr: float
    step_lr: float
    bias_lr: float
    weight_step_lr: float
    strength: float
    warmup: float
    beta: tuple[float, float]
    seed: int
    fisher: bool
    bfloat16: bool

    def beta_at(self, iteration: int) -> float | None:
        """The exponent of the regularizer: None while warming up, then linear from the first to the second."""
        begun = self.warmup * self.iterations
        if iteration < begun:
            return None
        first, last = self.beta
        return first + (last - first) * (iteration - begun) / (self.iterations - begun)


def _seed_of(seed: int, iteration: int) -> int:
    """Of what one iteration draws: it does not depend on what earlier ones drew, so that a state that is resumed from
    needs no generator. The factor is a prime, so that the iterations of neighbouring seeds draw otherwise."""
    return seed + 7919 * iteration


class Mask:
    """1 for elements that are kept and 0 for others, at random: windows of a pool, other ones in each iteration."""

    def __init__(self, keep: float, seed: int) -> None:
        self.keep, self.seed = keep, seed
        self.pools: dict[tuple[int, torch.dtype], Tensor] = {}
        self.generator = torch.Generator()

    def begin(self, iteration: int) -> None:
        """What is drawn from here on depends on the seed and this number alone."""
        self.generator.manual_seed(_seed_of(self.seed, iteration))

    def __call__(self, x: Tensor) -> Tensor:
        """In shape, strides, dtype and device of `x`, a tensor without gaps."""
        size = x.numel()
        if (size, x.dtype) not in self.pools:
            generator = torch.Generator().manual_seed(self.seed)
            drawn = torch.empty(size + size // 2 + 64).bernoulli_(self.keep, generator=generator)
            self.pools[size, x.dtype] = drawn.to(x.device, x.dtype)
        offset = int(torch.randint(size // 2 + 64, (), generator=self.generator))
        return self.pools[size, x.dtype].as_strided(x.shape, x.stride(), offset)


class Learning:
    """Of the `unit` of this `number` of a `model`, whose quantizers have their ranges."""

    def __init__(self, model: nn.Module, unit: Unit, settings: Settings, number: int) -> None:
        self.model, self.unit, self.settings, self.number = model, unit, settings, number
        self.layers = {name: model.get_submodule(name) for name in (*unit.rounded, *unit.layers)}
        self.before = {name: (layer.weight, layer.input) for name, layer in self._quantized()}
        self.scales = {name: input.scale for name, (_, input) in self.before.items() if input is not None}
        self.biases = {name: layer.layer.bias for name, layer in self._quantized() if name in unit.layers}
        seed = settings.seed * 1_000_003 + number * 10_007
        self.generator = torch.Generator()
        self.seed = seed
        self.mask = Mask(1 - settings.drop, seed) if settings.drop else None
        self.roundings: dict[str, LearnedRounding] = {}
        self.steps: dict[str, LearnedStep] = {}
        self.optimizer: torch.optim.Adam | None = None
        self.iteration, self.error = 0, math.nan
        self.weight: Tensor | None = None
        """Of each element of the unit's output for each image, where its error does not count as any other's."""

    def _quantized(self) -> Iterator[tuple[str, Quantized]]:
        for name, layer in self.layers.items():
            assert isinstance(layer, Quantized)
            yield name, layer

    def install(self) -> None:
        """What is to be learned goes into the layers."""
        for name, layer in self._quantized():
            if layer.weight is not None and self.settings.learns != "steps":
                self.roundings[name] = layer.weight = LearnedRounding(layer.weight, _weight(layer))
                if self.settings.weight_step_lr:
                    self.roundings[name].learn_scale()
            if (
                layer.input is not None
                and layer.input.mode == "frozen"
                and self.settings.learns != "rounding"
            ):
                self.steps[name] = LearnedStep(layer.input, self.mask)
                layer.input = self.steps[name]  # type: ignore[assignment]
            if self.settings.bias_lr and name in self.biases:
                replace_bias(layer.layer, _bias(layer.layer))

    def iterations(self, caches: tuple[Tensor, Tensor, Tensor], at: dict[str, Any]) -> Iterator[int]:
        """Learn, on from the state `at`; yields after each iteration how many were done. `error` is that of the
        batch when it was read last."""
        learned = [rounding.alpha for rounding in self.roundings.values() if rounding.alpha is not None]
        steps = [step.log_factor for step in self.steps.values()]
        weight_steps = [one.log_factor for one in self.roundings.values() if one.log_factor is not None]
        if not learned + steps:
            return
        settings = self.settings
        held = [
            layer.layer.bias for name, layer in self._quantized() if name in self.biases and settings.bias_lr
        ]
        biases = [bias for bias in held if isinstance(bias, nn.Parameter)]
        kinds = (
            *((learned, settings.lr), (steps, settings.step_lr)),
            *((biases, settings.bias_lr), (weight_steps, settings.weight_step_lr)),
        )
        rates = [lr for parameters, lr in kinds if parameters]
        groups = [{"params": parameters} for parameters, _ in kinds if parameters]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        if at:
            self._load(at)
        parameters = [*learned, *steps, *biases, *weight_steps]
        while self.iteration < settings.iterations:
            falling = (1 + math.cos(math.pi * self.iteration / settings.iterations)) / 2
            for number, (group, lr) in enumerate(zip(self.optimizer.param_groups, rates, strict=True)):
                group["lr"] = lr if learned and number == 0 else lr * falling
            loss = self._loss(caches)
            for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = grad
            self.optimizer.step()
            self.iteration += 1
            yield self.iteration

    def _loss(self, caches: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Of the iteration at hand: squared error and regularizer."""
        given, in_float, target = caches
        self.generator.manual_seed(_seed_of(self.seed, self.iteration))
        index = torch.randint(len(given), (self.settings.batch,), generator=self.generator)
        index = index.to(given.device, non_blocking=True)
        low = self.settings.bfloat16
        dtype = torch.bfloat16 if low else torch.float32
        x = given[index].to(dtype)
        if self.mask is not None:
            self.mask.begin(self.iteration)
            x = mixed(in_float[index].to(dtype), x, self.mask(x))
        with torch.enable_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            y = run(self.model, self.unit.nodes, {self.unit.input: x}, self.unit.output)
            weight = None if self.weight is None else self.weight[index].to(dtype)
            loss: Tensor = SquaredError.apply(y, target[index].to(y.dtype), weight)  # type: ignore[no-untyped-call]
            error = loss.detach()
            beta = self.settings.beta_at(self.iteration)
            if beta is not None:
                for rounding in self.roundings.values():
                    loss = loss + self.settings.strength * rounding.regularizer(beta)
        if self.iteration % CHECK_EVERY == 0 or self.iteration == self.settings.iterations - 1:
            # Reading waits for the device; what has become NaN stays so until the next time.
            self.error = float(error)
            if not torch.isfinite(loss):
                raise SuiteError(
                    f"the reconstruction of {self.unit.name} became inf or NaN; use a lower learning rate"
                )
        return loss

    def state(self) -> dict[str, Any]:
        """After the iteration at hand; a copy."""
        assert self.optimizer is not None
        learned = [
            parameter.detach() for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        state = {"iteration": self.iteration, "learned": learned, "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy(state)

    def _load(self, state: dict[str, Any]) -> None:
        assert self.optimizer is not None
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        with torch.no_grad():
            for parameter, value in zip(parameters, state["learned"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]

    @torch.no_grad()
    def harden(self) -> dict[str, Any]:
        """Round by what was learned from now on; that is returned, for `restore`."""
        learned: dict[str, Any] = copy.deepcopy(NOTHING)
        for name, rounding in self.roundings.items():
            nearest = rounding.up
            learned["weights"][name] = rounding.harden().up
            learned["turned"][name] = round(float((rounding.up != nearest).double().mean()), 6)
            learned["weight_scales"][name] = rounding.scale.detach().clone()
        for name, step in self.steps.items():
            learned["scales"][name] = step.scale.detach().clone()
        if self.settings.bias_lr:
            for name, layer in self._quantized():
                if name in self.biases:
                    learned["biases"][name] = _bias(layer.layer)
        self._take(learned["scales"])
        return learned

    def restore(self, learned: dict[str, Any]) -> None:
        """Round by what an earlier attempt learned."""
        for name, layer in self._quantized():
            if (up := learned["weights"].get(name)) is not None:
                assert layer.weight is not None
                scale = learned.get("weight_scales", {}).get(name)  # a state of before has none
                layer.weight = LearnedRounding(layer.weight, _weight(layer)).hardened(up)
                layer.weight.scale = (
                    layer.weight.scale if scale is None else scale.to(layer.weight.scale.device)
                )
            if (bias := learned["biases"].get(name)) is not None:
                replace_bias(layer.layer, bias.to(layer.layer.weight.device))
        self._take(learned["scales"])

    def _take(self, scales: dict[str, Tensor]) -> None:
        for name, layer in self._quantized():
            _, layer.input = self.before[name]
            if name in scales and layer.input is not None:
                layer.input.scale = scales[name].to(layer.input.scale.device)

    def undo(self) -> None:
        """Round to the nearest again, in steps as before."""
        for name, layer in self._quantized():
            layer.weight = self.before[name][0]
            if name in self.biases:
                layer.layer.bias = self.biases[name]
        self._take(self.scales)


def _weight(layer: Quantized) -> Tensor:
    weight = layer.layer.weight
    assert isinstance(weight, Tensor)
    return weight


def replace_bias(layer: nn.Module, bias: Tensor) -> None:
    """Give the layer another bias, and remember that of the float network, which a later reconstruction asks for."""
    layer.__dict__.setdefault("float_bias", layer.bias)
    layer.bias = nn.Parameter(bias)


def restore_bias(layer: nn.Module) -> None:
    """Give the layer the bias of the float network again."""
    if "float_bias" in layer.__dict__:
        layer.bias = layer.__dict__.pop("float_bias")


def _bias(layer: nn.Module) -> Tensor:
    """A copy of the layer's bias; zeros where it has none."""
    bias, weight = layer.bias, layer.weight
    assert isinstance(weight, Tensor)
    return bias.detach().clone() if isinstance(bias, Tensor) else weight.new_zeros(len(weight))
