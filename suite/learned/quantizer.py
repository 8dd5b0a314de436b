"""A quantizer whose parameters, such as its step size, learn with the weights: what all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import Grid
from suite.quantizers.layers import Quantized
from suite.quantizers.quantizer import Quantizer
from suite.ranges.observers import Observer

SMALLEST_STEP = 2.0**-64
"""A step size that learns is never smaller: neither it nor its reciprocal leaves float32, whatever it multiplies."""


class Learned(nn.Parameter):
    """A parameter of a quantizer. It stays float32 at every precision, and its learning rate is the training's times
    `lr_scale`."""

    lr_scale: float
    weight_decay: float

    def __new__(
        cls, data: Tensor, requires_grad: bool = True, lr_scale: float = 1.0, weight_decay: float = 0.0
    ) -> Learned:
        made: Learned = super().__new__(cls, data, requires_grad)
        made.lr_scale, made.weight_decay = lr_scale, weight_decay
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Learned:
        if id(self) not in memo:
            data = self.data.clone(memory_format=torch.preserve_format)
            memo[id(self)] = Learned(data, self.requires_grad, self.lr_scale, self.weight_decay)
        copied: Learned = memo[id(self)]
        return copied


@dataclass(frozen=True)
class Learning:
    """How the parameters of a quantizer learn: times the learning rate of the training, and by which weight decay."""

    lr_scale: float = 1.0
    weight_decay: float = 0.0


USUAL = Learning()


class LearnedQuantizer(Quantizer):
    """A Quantizer whose `LEARNED` buffers become parameters when learning begins, and buffers again when it ends.

    Until `learn` it observes; from then on it rounds by `rounded`.
    """

    LEARNED: ClassVar[tuple[str, ...]] = ("scale",)
    SIGNED: ClassVar[tuple[str, ...]] = ()
    """Those of LEARNED that may be negative: ends of a range and offsets, and neither step sizes nor clips."""
    SYMMETRIC: ClassVar[bool] = True
    of_weight = False
    """Whether it rounds a weight; `start_learning` sets it."""

    def __init__(
        self,
        grid: Grid,
        observer: Observer,
        axis: int | None = None,
        unsigned: bool = False,
        learning: Learning = USUAL,
    ) -> None:
        super().__init__(grid, observer, "observe", self.SYMMETRIC, axis, unsigned)
        self.learning = learning

    @property
    def repeats(self) -> bool:
        return self.mode == "frozen"

    def forward(self, x: Tensor) -> Tensor:
        """`x` as it is while observing, else rounded; its shape and dtype."""
        if self.mode == "observe":
            assert self.observer is not None
            self.observer(x)
            return x
        return self.rounded(x)

    def rounded(self, x: Tensor) -> Tensor:
        """`x` rounded, with the gradients by which everything learns."""
        raise NotImplementedError

    def in_effect(self, name: str) -> Tensor:
        """What is learned by this name, as it counts: of SIGNED as it is, of the others the magnitude, since an
        optimizer's step may put it across zero. Beyond zero training is the mirror image, and gives the same."""
        value: Tensor = getattr(self, name)
        return value if name in self.SIGNED else positive(value)

    def begin(self) -> None:
        """Set the LEARNED buffers from scale, zero_point and grid, as calibration left them."""

    def set_range(self, checked: bool = True) -> None:
        super().set_range(checked)
        self.begin()

    def fix(self, low: Tensor, high: Tensor, never_negative: bool) -> None:
        super().fix(low, high, never_negative)
        self.begin()

    def learn(self) -> None:
        """End observing; what learns is a parameter from now on."""
        if self.mode == "observe":
            self.set_range()
        self.mode, self.observer = "frozen", None
        for name in self.LEARNED:
            value = getattr(self, name).detach().float().clone()
            delattr(self, name)
            how = self.learning
            self.register_parameter(name, Learned(value, True, how.lr_scale, how.weight_decay))

    def end(self) -> None:
        """Set scale, zero_point and grid from what was learned, for reports and exports."""

    def freeze(self) -> None:
        """What was learned is a buffer from now on, as it counts, and so no weight of the network."""
        super().freeze()
        with torch.no_grad():
            for name in self.LEARNED:
                value = self.in_effect(name).clone()
                self._parameters.pop(name, None)
                self.register_buffer(name, value)
            self.end()

    def settled(self, x: Tensor) -> Tensor:
        """`x` rounded for good: as was learned or, where nothing was, in the range that is observed now."""
        if self.mode == "observe":
            assert self.observer is not None
            self.observer(x)
        self.freeze()
        return self.rounded(x)


def positive(step: Tensor) -> Tensor:
    """The magnitude of a step size, SMALLEST_STEP or more."""
    return step.abs().clamp_min(SMALLEST_STEP)


def start_learning(model: nn.Module) -> None:
    """Each LearnedQuantizer of `model` begins to learn. Raises SuiteError for an input that saw nothing."""
    for module in model.modules():
        if isinstance(module, Quantized):
            weight = module.weight
            if isinstance(weight, LearnedQuantizer) and weight.observer is not None:
                weight.observer(module.layer.weight)
            for quantizer in (weight, module.input):
                if isinstance(quantizer, LearnedQuantizer):
                    quantizer.of_weight = quantizer is weight
                    quantizer.learn()


def learned_values(model: nn.Module) -> dict[str, float]:
    """The value of each parameter that learns, as it counts, of several the mean, by its name. Waits for the device
    once."""
    quantizers = ((at, one) for at, one in model.named_modules() if isinstance(one, LearnedQuantizer))
    found = {
        f"{at}.{name}".lstrip("."): one.in_effect(name).detach().mean()
        for at, one in quantizers
        for name, _ in one.named_parameters(recurse=False)
    }
    return dict(zip(found, torch.stack([*found.values()]).tolist(), strict=True)) if found else {}
