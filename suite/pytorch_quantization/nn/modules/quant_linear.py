"""The quantized linear layer that replaces torch's."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from suite.pytorch_quantization.nn.modules._utils import QuantizedLayer
from suite.pytorch_quantization.tensor_quant import QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW


class QuantLinear(QuantizedLayer, nn.Linear):
    """torch.nn.Linear of the quantized input and weight: [..., in_features]."""

    default_quant_desc_weight = QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW

    def forward(self, input: Tensor) -> Tensor:
        """The product of the quantized input and the quantized weight, plus the bias: [..., out_features]."""
        return F.linear(self._input_quantizer(input), self._weight_quantizer(self.weight), self.bias)


Linear = QuantLinear
