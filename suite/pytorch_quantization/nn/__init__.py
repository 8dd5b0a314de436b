"""Quantized layers that replace torch's: same arguments, same parameters, quantizers inside."""

from suite.pytorch_quantization.nn.modules.clip import Clip
from suite.pytorch_quantization.nn.modules.quant_conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
)
from suite.pytorch_quantization.nn.modules.quant_linear import Linear, QuantLinear
from suite.pytorch_quantization.nn.modules.quant_pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    QuantAdaptiveAvgPool1d,
    QuantAdaptiveAvgPool2d,
    QuantAdaptiveAvgPool3d,
    QuantAvgPool1d,
    QuantAvgPool2d,
    QuantAvgPool3d,
    QuantMaxPool1d,
    QuantMaxPool2d,
    QuantMaxPool3d,
)
from suite.pytorch_quantization.nn.modules.tensor_quantizer import TensorQuantizer

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Clip",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "QuantAdaptiveAvgPool1d",
    "QuantAdaptiveAvgPool2d",
    "QuantAdaptiveAvgPool3d",
    "QuantAvgPool1d",
    "QuantAvgPool2d",
    "QuantAvgPool3d",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantLinear",
    "QuantMaxPool1d",
    "QuantMaxPool2d",
    "QuantMaxPool3d",
    "TensorQuantizer",
]
