"""Quantized convolutions that replace torch's: same arguments, same parameters, two quantizers inside."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from suite.pytorch_quantization.nn.modules._utils import QuantizedLayer
from suite.pytorch_quantization.tensor_quant import QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL


class _QuantConvNd(QuantizedLayer, _ConvNd):
    default_quant_desc_weight = QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(
            self._input_quantizer(input), self._weight_quantizer(self.weight), self.bias
        )


class QuantConv1d(_QuantConvNd, nn.Conv1d):
    """torch.nn.Conv1d of the quantized input and weight: [images, channels, length]."""


class QuantConv2d(_QuantConvNd, nn.Conv2d):
    """torch.nn.Conv2d of the quantized input and weight: [images, channels, height, width]."""


class QuantConv3d(_QuantConvNd, nn.Conv3d):
    """torch.nn.Conv3d of the quantized input and weight: [images, channels, depth, height, width]."""


Conv1d, Conv2d, Conv3d = QuantConv1d, QuantConv2d, QuantConv3d
