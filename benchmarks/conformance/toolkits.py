"""The adapters: a toolkit's own functions behind one interface. Nothing is imported before `version()` asks for it.

To add a toolkit: a class with the three methods of settings.Toolkit, and its name in TOOLKITS.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import version as installed
from typing import Any

import torch
from torch import Tensor

from benchmarks.conformance.settings import NotOfferedError, Range, Setting, Toolkit
from suite.arithmetic.affine import Grid, fake_quantize
from suite.ranges.observers import extremes


def _ends(x: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
    return extremes(x, 0 if setting.per_channel else None)


class Ours:
    """This suite: suite.arithmetic.affine, as the methods and NVIDIA's interface use it."""

    name = "ours"

    def version(self) -> str:
        return "this checkout"

    def range(self, x: Tensor, setting: Setting) -> Range:
        grid = Grid(setting.bits, signed=setting.symmetric, narrow=setting.symmetric)
        low, high = _ends(x, setting)
        if setting.symmetric:
            scale, zero_point = grid.symmetric(torch.maximum(-low, high))
        else:
            scale, zero_point = grid.affine(low, high)
        return Range(scale, zero_point, grid.quant_min, grid.quant_max)

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        axis = 0 if setting.per_channel else None
        return fake_quantize(x, range_.scale, range_.zero_point, range_.quant_min, range_.quant_max, axis)


class TorchAo:
    """torch.ao: its observers of extremes, and torch.fake_quantize_*."""

    name = "torch.ao"

    def version(self) -> str:
        import_module("torch.ao.quantization.observer")
        return torch.__version__

    def range(self, x: Tensor, setting: Setting) -> Range:
        observers = import_module("torch.ao.quantization.observer")
        low, high = (
            (-(2 ** (setting.bits - 1)), 2 ** (setting.bits - 1) - 1) if setting.symmetric else (0, 255)
        )
        kind: dict[str, Any] = {"quant_min": low, "quant_max": high}
        if setting.per_channel:
            kind |= {"dtype": torch.qint8, "qscheme": torch.per_channel_symmetric}
            observer = observers.PerChannelMinMaxObserver(ch_axis=0, **kind)
        elif setting.symmetric:
            observer = observers.MinMaxObserver(torch.qint8, torch.per_tensor_symmetric, **kind)
        else:
            observer = observers.MinMaxObserver(torch.quint8, torch.per_tensor_affine, **kind)
        observer(x)
        scale, zero_point = observer.calculate_qparams()
        shape = scale.shape if setting.per_channel else []
        return Range(scale.reshape(shape), zero_point.float().reshape(shape), low, high)

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        zero_point = range_.zero_point.int()
        ends = range_.quant_min, range_.quant_max
        if setting.per_channel:
            return torch.fake_quantize_per_channel_affine(x, range_.scale, zero_point, 0, *ends)
        return torch.fake_quantize_per_tensor_affine(x, range_.scale, zero_point, *ends)


class TorchAoNew:
    """torchao: choose_qparams_affine and the fake quantization of its training."""

    name = "torchao"

    def version(self) -> str:
        import_module("torchao.quantization.quant_primitives")
        return installed("torchao")

    def _block(self, x: Tensor, setting: Setting) -> tuple[int, ...]:
        return (1, x.shape[1]) if setting.per_channel else tuple(x.shape)

    def range(self, x: Tensor, setting: Setting) -> Range:
        primitives = import_module("torchao.quantization.quant_primitives")
        half = 2 ** (setting.bits - 1)
        low, high = (-half, half - 1) if setting.symmetric else (0, 2 * half - 1)
        mapping = primitives.MappingType
        scale, zero_point = primitives.choose_qparams_affine(
            x,
            mapping.SYMMETRIC if setting.symmetric else mapping.ASYMMETRIC,
            self._block(x, setting),
            torch.int8 if setting.symmetric else torch.uint8,
            low,
            high,
        )
        return Range(scale, zero_point.float(), low, high)

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        primitives = import_module("torchao.quantization.quant_primitives")
        result: Tensor = primitives._fake_quantize_affine(
            x,
            self._block(x, setting),
            range_.scale,
            range_.zero_point.int(),
            torch.int8 if setting.symmetric else torch.uint8,
            range_.quant_min,
            range_.quant_max,
        )
        return result


class ModelOpt:
    """NVIDIA ModelOpt, heir of pytorch-quantization: its max calibrator and fake_tensor_quant on the CPU."""

    name = "NVIDIA ModelOpt"

    def version(self) -> str:
        import_module("modelopt.torch.quantization.tensor_quant")
        return installed("nvidia-modelopt")

    def range(self, x: Tensor, setting: Setting) -> Range:
        if not setting.symmetric:
            raise NotOfferedError("its integers have no zero point")
        calib = import_module("modelopt.torch.quantization.calib")
        calibrator = calib.MaxCalibrator(setting.bits, 0 if setting.per_channel else None, False)
        calibrator.collect(x)
        highest = 2 ** (setting.bits - 1) - 1
        scale = (calibrator.compute_amax() / highest).reshape(-1 if setting.per_channel else [])
        return Range(scale, torch.zeros_like(scale), -highest - 1, highest)

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        quant = import_module("modelopt.torch.quantization.tensor_quant")
        amax = range_.scale * range_.quant_max
        amax = amax.reshape(-1, 1) if setting.per_channel else amax
        narrow = range_.quant_min == -range_.quant_max
        result: Tensor = quant.fake_tensor_quant(x, amax, None, setting.bits, False, narrow)
        return result


class Brevitas:
    """brevitas: its weight quantizers, whose zero point is that of ShiftedUint8Weight."""

    name = "brevitas"

    def version(self) -> str:
        import_module("brevitas.nn")
        return installed("brevitas")

    def _layer(self, x: Tensor, setting: Setting) -> Any:
        brevitas, quant = import_module("brevitas.nn"), import_module("brevitas.quant")
        if setting.symmetric:
            kinds = quant.Int8WeightPerTensorFloat, quant.Int8WeightPerChannelFloat
        else:
            kinds = quant.ShiftedUint8WeightPerTensorFloat, quant.ShiftedUint8WeightPerChannelFloat
        kind = kinds[setting.per_channel]
        layer = brevitas.QuantLinear(
            x.shape[1], x.shape[0], bias=False, weight_quant=kind, weight_bit_width=setting.bits
        )
        layer.weight.data = x.detach().clone()
        return layer

    def range(self, x: Tensor, setting: Setting) -> Range:
        with torch.no_grad():
            quantized = self._layer(x, setting).quant_weight()
        shape = [-1] if setting.per_channel else []
        scale = quantized.scale.reshape(shape)
        zero_point = quantized.zero_point.float().expand(quantized.scale.shape).reshape(shape)
        half = 2 ** (setting.bits - 1)
        low, high = (1 - half, half - 1) if setting.symmetric else (0, 2 * half - 1)
        return Range(scale, zero_point, low, high)

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        core = self._layer(x, setting).weight_quant.tensor_quant.int_quant
        shape = [-1, 1] if setting.per_channel else []
        scale, zero_point = range_.scale.reshape(shape), range_.zero_point.reshape(shape)
        result: Tensor = core(scale, zero_point, torch.tensor(float(setting.bits)), x)
        return result


class Nncf:
    """NNCF: the parameters of its FakeQuantize layers, and the quantizer of its training without compiled code."""

    name = "NNCF"

    def version(self) -> str:
        os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "0")
        import_module("nncf.torch.quantization.reference")
        return installed("nncf")

    def range(self, x: Tensor, setting: Setting) -> Range:
        structs = import_module("nncf.common.quantization.structs")
        wrapped = import_module("nncf.tensor").Tensor
        config = structs.QuantizerConfig(
            setting.bits,
            structs.QuantizationScheme.SYMMETRIC
            if setting.symmetric
            else structs.QuantizationScheme.ASYMMETRIC,
            signedness_to_force=True if setting.symmetric else None,
            per_channel=setting.per_channel,
        )
        low, high = _ends(x, setting)
        if setting.symmetric:
            low, high = -torch.maximum(-low, high), torch.maximum(-low, high)
        statistics = import_module("nncf.common.tensor_statistics.statistics").MinMaxTensorStatistic(
            min_values=wrapped(low), max_values=wrapped(high)
        )
        found = import_module("nncf.quantization.fake_quantize").calculate_quantizer_parameters(
            statistics, config, structs.QuantizerGroup.WEIGHTS
        )
        start, end = found.input_low.data, found.input_high.data
        quant_min = -(2 ** (setting.bits - 1)) if setting.symmetric else 0
        scale = (end - start) / (found.levels - 1)
        zero_point = torch.zeros_like(scale) if setting.symmetric else -torch.round(start / scale)
        return Range(scale, zero_point, quant_min, quant_min + found.levels - 1)

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        shape = [-1, 1] if setting.per_channel else []
        scale = range_.scale.reshape(shape)
        start = (range_.quant_min - range_.zero_point.reshape(shape)) * scale
        steps = range_.quant_max - range_.quant_min
        result: Tensor = _NncfRound.apply(
            x, start, steps * scale, steps + 1, range_.quant_min, range_.quant_max
        )  # type: ignore[no-untyped-call]
        return result


class _NncfRound(torch.autograd.Function):
    """NNCF's forward and backward, which its own autograd functions call, compiled or not."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, low: Tensor, width: Tensor, levels: int, first: int, last: int
    ) -> Tensor:
        ctx.save_for_backward(x, low, width)
        ctx.levels = levels, first, last
        result: Tensor = import_module("nncf.torch.quantization.reference").torch_executor.forward(
            x, low, width, levels
        )
        return result

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        executor = import_module("nncf.torch.quantization.reference").torch_executor
        return executor.backward(grad[0], *ctx.saved_tensors, *ctx.levels)[0], None, None, None, None, None


class Aimet:
    """AIMET: its QuantizeDequantize with min-max encodings; its offset is minus the zero point."""

    name = "AIMET"

    def version(self) -> str:
        import_module(
            "suite.networks.torchvision_import"
        )  # AIMET imports torchvision, which asks for CUDA's operators
        import_module("aimet_torch.quantization.affine")
        return installed("aimet-torch")

    def range(self, x: Tensor, setting: Setting) -> Range:
        affine = import_module("aimet_torch.quantization.affine")
        half = 2 ** (setting.bits - 1)
        low, high = (-half, half - 1) if setting.symmetric else (0, 2 * half - 1)
        shape = (x.shape[0], 1) if setting.per_channel else ()
        quantizer = affine.QuantizeDequantize(shape, qmin=low, qmax=high, symmetric=setting.symmetric)
        with torch.no_grad(), quantizer.compute_encodings():
            quantizer(x)
        flat = [-1] if setting.per_channel else []
        scale, offset = (
            value.detach().reshape(flat) for value in (quantizer.get_scale(), quantizer.get_offset())
        )
        return Range(scale, 0.0 - offset, low, high)

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        affine = import_module("aimet_torch.quantization.affine")
        shape = [-1, 1] if setting.per_channel else []
        scale, offset = range_.scale.reshape(shape), -range_.zero_point.reshape(shape)
        result: Tensor = affine.quantize_dequantize(
            x, scale, offset, qmin=range_.quant_min, qmax=range_.quant_max
        )
        return result


TOOLKITS: dict[str, Toolkit] = {
    toolkit.name: toolkit
    for toolkit in (Ours(), TorchAo(), TorchAoNew(), ModelOpt(), Brevitas(), Nncf(), Aimet())
}
