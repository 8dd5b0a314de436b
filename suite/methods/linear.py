"""Naive linear quantization of every tensor of a state_dict (source 000, `linear_quantize`).

    temp = (w - min) / (max - min);  q = temp * (2^bits - 1) - 2^(bits-1);  int(q)

Where the source misleads: it never maps q back, so weights of 0.01 become integers up to 2^(bits-1) (`map_back`
does it); `int` truncates toward zero, so the grid has a double-wide middle (`rounding`); zero is not on the grid;
every tensor but BatchNorm's statistics is quantized, biases and BatchNorm's parameters too (`every_tensor`), since
`--conv-bits` is read and never used and `--linear-bits` serves all. Its numbers were almost surely measured with the
original float weights: apex replaces `model.forward` by a closure, so the deep copy that was evaluated ran the
original (`weights_evaluated=False`), which was still in training mode (`batch_statistics`); what they show is
`input.int().float()` on normalized images, which leaves about five values a channel (`input_cast`). "half" is the
same model in float16 with nothing else done to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from suite.recipe.errors import check_bits, check_choice
from suite.recipe.method import Feed, Method, Step

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Linear(Method):
    """Each parameter tensor from its min..max to `weight_bits` integers; the widths are 2 to 16.

    `rounding` "none" only scales: the source's control without int().
    """

    weight_bits: int = 8
    rounding: Literal["truncate", "nearest", "none"] = "truncate"
    map_back: bool = False
    input_cast: bool = True
    every_tensor: bool = True
    weights_evaluated: bool = True
    batch_statistics: bool = False
    dtype: Literal["float32", "float16"] = "float32"

    name: ClassVar[str] = "linear"
    act_bits: ClassVar[int] = 32

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_choice("rounding", self.rounding, ROUNDING)
        check_choice("dtype", self.dtype, ("float32", "float16"))

    @property
    def batch_norm(self) -> str:
        """Its parameters are quantized with the rest, or its statistics are those of each batch of test images."""
        if self.batch_statistics:
            return "of each batch"
        return "quantized" if self.every_tensor and self.weights_evaluated else "kept"

    def steps(self) -> tuple[Step, ...]:
        """The parameters, then what the evaluated model does to its input."""
        rounded = (ScaleParameters(self.weight_bits, self.rounding, self.map_back, self.every_tensor),)
        return (
            *(rounded if self.weights_evaluated else ()),
            *((ForgetStatistics(),) if self.batch_statistics else ()),
            CastInput(self.input_cast, self.dtype),
        )


@dataclass(frozen=True)
class ScaleParameters(Step):
    """Each parameter tensor goes through `linear_quantize`, or the weights of layers that multiply alone."""

    bits: int
    rounding: Literal["truncate", "nearest", "none"]
    map_back: bool
    every_tensor: bool

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        from suite.quantizers.layers import LAYERS, set_weight

        for module in model.modules():
            if self.every_tensor or isinstance(module, LAYERS):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    if self.every_tensor or name == "weight":
                        quantized = linear_quantize(parameter, self.bits, self.rounding, self.map_back)
                        limits = ends(parameter.detach(), self.bits, self.map_back)
                        set_weight(module, quantized, self.bits, name, limits)
        return model.eval()


@dataclass(frozen=True)
class ForgetStatistics(Step):
    """BatchNorm normalizes by the statistics of each batch, in evaluation too."""

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        from suite.networks.graph import BATCH_NORM

        for module in model.modules():
            if isinstance(module, BATCH_NORM):
                module.running_mean = module.running_var = None
        return model


@dataclass(frozen=True)
class CastInput(Step):
    """The model computes in `dtype`, on an input truncated to integers where `truncate`."""

    truncate: bool
    dtype: Literal["float32", "float16"]

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """A model that holds `model`."""
        import torch

        from suite.quantizers.wrappers import CastInput as Casting

        feed.before_rounding(model)
        return Casting(model, self.truncate, getattr(torch, self.dtype))


ROUNDING = {"truncate": "trunc", "nearest": "round", "none": "clone"}
"""The function of torch that does it."""


def linear_quantize(w: Tensor, bits: int, rounding: str, map_back: bool) -> Tensor:
    """The source's formula, in the shape of `w`; a constant tensor goes to the lowest integer (temp = 0)."""
    import torch

    low, width = w.min(), w.max() - w.min()
    levels, lowest = 2.0**bits - 1, -(2.0 ** (bits - 1))
    q = torch.where(width > 0, (w - low) / width, 0).float() * levels + lowest
    q = getattr(torch, ROUNDING[rounding])(q)
    # x ~ (q - zero_point) * scale with scale = width / levels and zero_point = lowest - low / scale, not rounded.
    mapped: Tensor = (q - lowest) * (width / levels) + low if map_back else q
    return mapped


def ends(w: Tensor, bits: int, map_back: bool) -> tuple[Tensor, Tensor]:
    """The least and the largest value that `linear_quantize` can give: those of `w`, or the integers themselves."""
    half = 2.0 ** (bits - 1)
    return (w.min(), w.max()) if map_back else (w.new_tensor(-half), w.new_tensor(half - 1))
