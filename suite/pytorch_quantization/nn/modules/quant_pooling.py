"""Pooling of a quantized input: torch's layers, their own arguments and, by keyword, quant_desc_input."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from suite.pytorch_quantization.nn.modules._utils import QuantInputMixin, pop_quant_desc_in_kwargs
from suite.pytorch_quantization.tensor_quant import QuantDescriptor


class _QuantPool(QuantInputMixin, nn.Module):
    def __init__(self, *args: Any, quant_desc_input: QuantDescriptor | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_quantizer(pop_quant_desc_in_kwargs(type(self), True, quant_desc_input=quant_desc_input))

    def forward(self, input: Tensor) -> Any:
        return super().forward(self._input_quantizer(input))


class QuantMaxPool1d(_QuantPool, nn.MaxPool1d):
    """torch.nn.MaxPool1d of the quantized input."""


class QuantMaxPool2d(_QuantPool, nn.MaxPool2d):
    """torch.nn.MaxPool2d of the quantized input."""


class QuantMaxPool3d(_QuantPool, nn.MaxPool3d):
    """torch.nn.MaxPool3d of the quantized input."""


class QuantAvgPool1d(_QuantPool, nn.AvgPool1d):
    """torch.nn.AvgPool1d of the quantized input."""


class QuantAvgPool2d(_QuantPool, nn.AvgPool2d):
    """torch.nn.AvgPool2d of the quantized input."""


class QuantAvgPool3d(_QuantPool, nn.AvgPool3d):
    """torch.nn.AvgPool3d of the quantized input."""


class QuantAdaptiveAvgPool1d(_QuantPool, nn.AdaptiveAvgPool1d):
    """torch.nn.AdaptiveAvgPool1d of the quantized input."""


class QuantAdaptiveAvgPool2d(_QuantPool, nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d of the quantized input."""


class QuantAdaptiveAvgPool3d(_QuantPool, nn.AdaptiveAvgPool3d):
    """torch.nn.AdaptiveAvgPool3d of the quantized input."""


MaxPool1d, MaxPool2d, MaxPool3d = QuantMaxPool1d, QuantMaxPool2d, QuantMaxPool3d
AvgPool1d, AvgPool2d, AvgPool3d = QuantAvgPool1d, QuantAvgPool2d, QuantAvgPool3d
AdaptiveAvgPool1d, AdaptiveAvgPool2d = QuantAdaptiveAvgPool1d, QuantAdaptiveAvgPool2d
AdaptiveAvgPool3d = QuantAdaptiveAvgPool3d
