"""The interface of source 004: NVIDIA's pytorch-quantization, its names over this suite's arithmetic.

In an import, replace `pytorch_quantization` by `suite.pytorch_quantization`: its modules nn (with nn.modules),
tensor_quant and calib have their namesakes here, and the common names can be imported from here too. State dicts have
NVIDIA's keys and shapes (`conv1._input_quantizer._amax`), a float layer's state dict loads into its quantized layer,
and the private fields of a quantizer and of a calibrator that code sets take effect.

What differs from NVIDIA's code (TensorRT, tools/pytorch-quantization):

- A descriptor is narrow by default: 255 values in -amax..amax, as source 004 says. NVIDIA's descriptor has
  narrow_range=False, whose lowest integer can be met only under a fixed amax, by what lies below -amax.
- The gradient is 1 where the rounded integer lies in the grid: up to half a step beyond amax. NVIDIA's ends at amax.
- A value is divided by its step as torch does it, x * (1 / step); NVIDIA's x * (127 / amax) may differ by a step at
  ties. An amax of at most 2^-24 quantizes like any other; NVIDIA's maps its tensor to zero.
- Errors are SuiteError; a keyword or a module that does not exist is Python's TypeError or ImportError, and a field of
  a descriptor that is set its AttributeError, as with NVIDIA's. NaN in a range and an unknown calib_method are errors
  here; a first batch of zeros is none.
- An empty batch has no dynamic amax and none to calibrate by max, which is an error, NVIDIA's too; under a fixed amax
  it passes, and a histogram counts nothing.
- Setting num_bits, unsigned or axis of a quantizer sets them for its calibrator too. axis and fake_quant may be set.
- Entropy passes over a cut below which nothing lies; NVIDIA's divergence is NaN there, and NaN wins.

Left out: FP8 (num_bits=(4, 3)), quantized normalization, recurrent and transposed layers, fake_affine_tensor_quant,
calibrate_weights (calibrate the weight quantizers instead), to_yaml and from_yaml of a descriptor,
quant_modules.initialize(), which rewrites torch.nn, and its enable_onnx_export(): `python -m suite export` writes
ONNX.
"""

from suite.pytorch_quantization.calib import HistogramCalibrator, MaxCalibrator
from suite.pytorch_quantization.nn import (
    Clip,
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantLinear,
    TensorQuantizer,
)
from suite.pytorch_quantization.tensor_quant import QuantDescriptor, fake_tensor_quant

__all__ = [
    "Clip",
    "HistogramCalibrator",
    "MaxCalibrator",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantDescriptor",
    "QuantLinear",
    "TensorQuantizer",
    "fake_tensor_quant",
]
