"""Quantizers whose step sizes learn with the weights: LSQ (arXiv 1902.08153)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from suite.quantizers.affine import Grid, by_channel
from suite.quantizers.cache_blocks import in_cache_blocks
from suite.quantizers.layers import Quantized
from suite.quantizers.observers import Observer
from suite.quantizers.quantizer import Quantizer

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


class Lsq(LearnedQuantizer):
    """LSQ: a step size that learns, one for the tensor or one for each channel of `axis`."""

    def begin(self) -> None:
        self.grid = replace(self.grid, narrow=False)

    def rounded(self, x: Tensor) -> Tensor:
        scale = by_channel(self.in_effect("scale"), x, self.axis)
        return lsq(x, scale, self.grid, gradient_scale(x, self.grid, self.axis, self.of_weight))


def positive(step: Tensor) -> Tensor:
    """The magnitude of a step size, SMALLEST_STEP or more."""
    return step.abs().clamp_min(SMALLEST_STEP)


def gradient_scale(x: Tensor, grid: Grid, axis: int | None, of_weight: bool) -> float:
    """1 / sqrt(N * quant_max), N the values that share a step: of a weight, or of one image's input.

    The size of the batch and its split over ranks leave it as it is.
    """
    count = x.numel() // (1 if axis is None else x.shape[axis]) if of_weight else math.prod(x.shape[1:])
    return 1 / math.sqrt(max(1, count) * grid.quant_max)


def lsq(x: Tensor, scale: Tensor, grid: Grid, gradient_scale: float, offset: Tensor | None = None) -> Tensor:
    """`x` rounded to integers of `grid` times `scale` > 0, plus `offset`, in the shape and dtype of `x`.

    scale: float32, broadcastable to `x`; offset: float32 [], no offset is 0. Without one, forward is bit-equal to
    `fake_quantize` without a zero point. Backward, with v = (x - offset) / scale, inside where it is between the ends
    of the grid:
        d/dx      1 inside, 0 outside
        d/dscale  (round(v) - v inside, the nearer end of the grid outside) * gradient_scale
        d/doffset (0 inside, 1 outside) * gradient_scale
    """
    result: Tensor = _Lsq.apply(x, scale, offset, grid.quant_min, grid.quant_max, gradient_scale)  # type: ignore[no-untyped-call]
    return result


class _Lsq(torch.autograd.Function):
    """It keeps `x`, which its maker keeps too, and computes the rest again: of memory, it takes the result alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        quant_min: int,
        quant_max: int,
        gradient_scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, offset)
        ctx.ends, ctx.gradient_scale = (quant_min, quant_max), gradient_scale

        def rounded(x: Tensor) -> Tensor:
            q = _steps(x, scale, offset).clamp_(quant_min, quant_max).round_().mul_(scale)
            return in_dtype(q if offset is None else q.add_(offset), x.dtype)

        return in_cache_blocks(rounded, x) if scale.dim() == 0 else rounded(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, offset = ctx.saved_tensors
        learns = ctx.needs_input_grad[1]

        def gradients(x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
            v, g = _steps(x, scale, offset), g.float()
            passed = torch.ops.aten.hardtanh_backward(
                g, v, *ctx.ends
            )  # 0 at the ends too, as the paper has it
            if not learns:
                return (passed.to(x.dtype),)
            clamped = v.clamp_(*ctx.ends)
            # Inside the grid round(v) - clamped is the paper's round(v) - v, and g - passed is 0; outside it is the
            # other way round, and clamped is the end.
            outside = g - passed
            of_scale = clamped.round().sub_(clamped).mul_(g).addcmul_(outside, clamped)
            by_scale = of_scale.sum_to_size(scale.shape) if scale.dim() else of_scale.sum()
            return passed.to(x.dtype), by_scale, *(() if offset is None else (outside.sum(),))

        found = in_cache_blocks(gradients, x, grad[0]) if scale.dim() == 0 else gradients(x, grad[0])
        passed, *sums = found if isinstance(found, tuple) else (found,)
        scaled = [one * ctx.gradient_scale for one in sums]
        by_scale, by_offset, *_ = *scaled, None, None
        return passed, by_scale, by_offset, None, None, None


def _steps(x: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """A new float32 tensor: how many steps lie between each value and the offset."""
    x = x.float()
    return x * scale.reciprocal() if offset is None else (x - offset).mul_(scale.reciprocal())


def in_dtype(rounded: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 values in another dtype; what float16 cannot tell becomes its largest value."""
    if dtype == torch.float16:
        rounded = rounded.clamp_(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return rounded.to(dtype)


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
