"""Quantized layers that replace torch's: same arguments, same parameters, two quantizers inside."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from suite.pytorch_quantization.quantizer import Clip, TensorQuantizer
from suite.pytorch_quantization.tensor_quant import (
    QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW,
    QUANT_DESC_8BIT_PER_TENSOR,
    QuantDescriptor,
)
from suite.recipe.errors import SuiteError

__all__ = [
    "Clip",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Linear",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantLinear",
    "TensorQuantizer",
]


class QuantMixin(nn.Module):
    """What makes a layer of torch a quantized one: a quantizer on its input and one on its weight.

    The arguments are the layer's own and, by keyword, quant_desc_input and quant_desc_weight; without them the
    defaults of the class: 8 bits, dynamic, inputs per tensor and weights per output channel. The layer's parameters
    keep their names. Raises SuiteError at a descriptor with fake_quant=False.
    """

    default_quant_desc_input = QUANT_DESC_8BIT_PER_TENSOR
    default_quant_desc_weight = QUANT_DESC_8BIT_PER_TENSOR

    def __init__(
        self,
        *args: Any,
        quant_desc_input: QuantDescriptor | None = None,
        quant_desc_weight: QuantDescriptor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        input = quant_desc_input or self.default_quant_desc_input
        weight = quant_desc_weight or self.default_quant_desc_weight
        if not (input.fake_quant and weight.fake_quant):
            raise SuiteError("a quantized layer computes on values mapped back; use fake_quant=True")
        self._input_quantizer, self._weight_quantizer = TensorQuantizer(input), TensorQuantizer(weight)

    @property
    def input_quantizer(self) -> TensorQuantizer:
        """The quantizer of the input."""
        return self._input_quantizer

    @property
    def weight_quantizer(self) -> TensorQuantizer:
        """The quantizer of the weight."""
        return self._weight_quantizer

    @classmethod
    def set_default_quant_desc_input(cls, value: QuantDescriptor) -> None:
        """Describe the inputs of this class's layers that are made from now on."""
        cls.default_quant_desc_input = _descriptor(value)

    @classmethod
    def set_default_quant_desc_weight(cls, value: QuantDescriptor) -> None:
        """Describe the weights of this class's layers that are made from now on."""
        cls.default_quant_desc_weight = _descriptor(value)


def _descriptor(value: QuantDescriptor) -> QuantDescriptor:
    if not isinstance(value, QuantDescriptor):
        raise SuiteError(f"{value!r} is no QuantDescriptor; use QuantDescriptor(...)")
    return value


class _QuantConv(QuantMixin, _ConvNd):
    default_quant_desc_weight = QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(
            self._input_quantizer(input), self._weight_quantizer(self.weight), self.bias
        )


class QuantConv1d(_QuantConv, nn.Conv1d):
    """torch.nn.Conv1d of the quantized input and weight: [images, channels, length]."""


class QuantConv2d(_QuantConv, nn.Conv2d):
    """torch.nn.Conv2d of the quantized input and weight: [images, channels, height, width]."""


class QuantConv3d(_QuantConv, nn.Conv3d):
    """torch.nn.Conv3d of the quantized input and weight: [images, channels, depth, height, width]."""


class QuantLinear(QuantMixin, nn.Linear):
    """torch.nn.Linear of the quantized input and weight: [..., in_features]."""

    default_quant_desc_weight = QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW

    def forward(self, input: Tensor) -> Tensor:
        """The product of the quantized input and the quantized weight, plus the bias: [..., out_features]."""
        return F.linear(self._input_quantizer(input), self._weight_quantizer(self.weight), self.bias)


Conv1d, Conv2d, Conv3d, Linear = QuantConv1d, QuantConv2d, QuantConv3d, QuantLinear
