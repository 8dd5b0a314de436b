"""The quantizer of one tensor: its switches, its fixed or dynamic amax, its calibrator, its learned clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from suite.pytorch_quantization.calib import Calibrator, HistogramCalibrator, MaxCalibrator
from suite.pytorch_quantization.nn.modules.clip import Clip
from suite.pytorch_quantization.tensor_quant import (
    LARGEST_KNOWN,
    QUANT_DESC_8BIT_PER_TENSOR,
    QuantDescriptor,
    amax_of,
    fake_tensor_quant,
    native_fake_quant,
    reduce_amax,
    tensor_quant,
)
from suite.recipe.errors import SuiteError


def _setting(name: str, what: str) -> property:
    """A field of the descriptor, which may be set at any time and counts from the next tensor on."""

    def read(self: TensorQuantizer) -> Any:
        return getattr(self._desc, name)

    def write(self: TensorQuantizer, value: Any) -> None:
        self._describe(**{name: value})

    return property(read, write, doc=what)


class TensorQuantizer(nn.Module):
    """Quantizes what passes through it, as `quant_desc` says.

    While calibrating (`enable_calib`) its calibrator watches, and `load_calib_amax` then fixes the amax, a buffer
    `_amax` in the state dict. Without one the amax is dynamic: computed from each tensor. `disable` lets all pass.
    if_clip: clip at the learned amax even while not quantizing (`enable_clip`, `disable_clip`).

    The fields that code for NVIDIA's class sets take effect too: `_num_bits`, `_unsigned`, `_narrow_range`, `_axis`,
    `_fake_quant`, `_scale_amax`, `_learn_amax`, `_amax`, `_calibrator`, `_disabled`, `_if_quant`, `_if_clip` and
    `_if_calib`; a value that cannot be raises SuiteError. use_fb_fake_quant, of the class: compute by torch's own fake
    quantize on the full range, with -2^(bits-1), whatever narrow_range is, as NVIDIA's does for torch's older ONNX
    export.
    """

    use_fb_fake_quant = False
    _known: tuple[Tensor, int] | None = None
    """The fixed amax that was found good, and its version then."""
    _amax: Tensor
    num_bits = _num_bits = _setting("num_bits", "2 to 16; may be set.")
    unsigned = _unsigned = _setting("unsigned", "Whether the integers start at 0; may be set.")
    narrow_range = _narrow_range = _setting(
        "narrow_range", "Whether the lowest signed integer is left out; may be set."
    )
    axis = _axis = _setting("axis", "The dimensions that keep an amax of their own; may be set.")
    fake_quant = _fake_quant = _setting("fake_quant", "Whether the integers are mapped back; may be set.")
    _scale_amax = _setting("scale_amax", "A factor on every amax; None is 1.")
    _learn_amax = _setting("learn_amax", "Whether the amax is the learned one.")

    def __init__(
        self,
        quant_desc: QuantDescriptor = QUANT_DESC_8BIT_PER_TENSOR,
        disabled: bool = False,
        if_quant: bool = True,
        if_clip: bool = False,
        if_calib: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(quant_desc, QuantDescriptor):
            raise SuiteError(f"quant_desc must be a QuantDescriptor, got {quant_desc!r}")
        self._desc, self._disabled, self._if_quant, self._if_calib = quant_desc, disabled, if_quant, if_calib
        self._if_clip = False
        self._scale: Tensor | None = None
        if quant_desc.amax is not None:
            self._amax = torch.tensor(quant_desc.amax)
        if quant_desc.learn_amax:
            amax = 1.0 if quant_desc.amax is None else quant_desc.amax
            self.clip = Clip(-amax, amax)
        if quant_desc.learn_amax or if_clip:
            self.enable_clip()
        kind = HistogramCalibrator if quant_desc.calib_method == "histogram" else MaxCalibrator
        self._calibrator: Calibrator | None = kind(quant_desc.num_bits, quant_desc.axis, quant_desc.unsigned)

    def _describe(self, **changes: Any) -> None:
        desc = replace(self._desc, **changes)
        if desc.learn_amax and "clip" not in self._modules:
            raise SuiteError("there is no learned amax to clip at; describe the tensor with learn_amax=True")
        if isinstance(self._calibrator, HistogramCalibrator) and desc.axis is not None:
            raise SuiteError(
                f"a histogram calibrator is per tensor, got axis {desc.axis!r}; use calib_method max"
            )
        self._desc = desc
        if self._calibrator is not None:
            self._calibrator._num_bits, self._calibrator._axis = desc.num_bits, desc.axis
            self._calibrator._unsigned = desc.unsigned

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_amax":
            super().__setattr__(name, value)
        elif value is not None:
            self.register_buffer(name, value.detach() if isinstance(value, Tensor) else amax_of(value))
        else:
            self._buffers.pop(name, None)

    @property
    def scale(self) -> Tensor | None:
        """Integers over `scale` are the values: of the last tensor quantized with fake_quant=False, None before."""
        return self._scale

    @property
    def step_size(self) -> Tensor | None:
        """The amax over the highest integer; None while it is dynamic."""
        return None if self.amax is None else self.amax / self._desc.grid.quant_max

    @property
    def amax(self) -> Tensor | None:
        """The fixed amax, None while it is dynamic; may be set to numbers of the same shape, `_amax` to any."""
        return self._buffers.get("_amax")

    @amax.setter
    def amax(self, value: Any) -> None:
        new = amax_of(value)
        if self.amax is not None:
            if new.shape != self._amax.shape:
                raise SuiteError(
                    f"an amax of shape {list(self._amax.shape)} cannot become one of shape {list(new.shape)}; "
                    "make a new quantizer for another axis"
                )
            new = new.to(self._amax)
        self.register_buffer("_amax", new)

    def disable(self) -> None:
        """Let everything pass unchanged and unwatched."""
        self._disabled = True

    def enable(self) -> None:
        """Undo `disable`."""
        self._disabled = False

    def enable_quant(self) -> None:
        """Quantize (so it is from the start)."""
        self._if_quant = True

    def disable_quant(self) -> None:
        """Let values pass unquantized, as while calibrating."""
        self._if_quant = False

    def enable_calib(self) -> None:
        """Let the calibrator watch."""
        self._watching()
        self._if_calib = True

    def disable_calib(self) -> None:
        """Stop the calibrator."""
        self._if_calib = False

    def enable_clip(self) -> None:
        """Clip, and learn the amax."""
        self._set_clip(True)

    def disable_clip(self) -> None:
        """Stop learning the amax."""
        self._set_clip(False)

    def _clips(self) -> None:
        if not self._desc.learn_amax:
            raise SuiteError("there is no learned amax to clip at; describe the tensor with learn_amax=True")

    def _set_clip(self, on: bool) -> None:
        self._clips()
        self._if_clip = on
        self.clip.requires_grad_(on)

    def _watching(self) -> Any:
        if self._calibrator is None:
            raise SuiteError("the quantizer has no calibrator; set _calibrator to one of calib")
        return self._calibrator

    def load_calib_amax(self, *args: Any, strict: bool = True, **kwargs: Any) -> None:
        """Fix the amax that the calibrator answers; arguments are those of its compute_amax.

        Where it saw nothing: SuiteError, or with strict=False an amax of NaN, which raises when it is used.
        """
        amax = self._watching().compute_amax(*args, **kwargs)
        if amax is None:
            if strict:
                raise SuiteError(
                    "the calibrator saw no tensor; enable_calib() and run the model on data before load_calib_amax()"
                )
            amax = torch.tensor(float("nan"))
        elif self.amax is not None and self.amax.shape != amax.shape and self.amax.isfinite().all():
            raise SuiteError(
                f"the calibrated amax has shape {list(amax.shape)}, the one before it {list(self._amax.shape)}; "
                "describe the tensor with the axis that its amax has"
            )
        self.register_buffer("_amax", amax)

    def init_learn_amax(self) -> None:
        """Start learning from the fixed amax, the largest where there are several."""
        if not self._desc.learn_amax:
            raise SuiteError("there is no learned amax to start; describe the tensor with learn_amax=True")
        if self.amax is None:
            raise SuiteError("there is no amax to start learning from; calibrate first")
        with torch.no_grad():
            self.clip.clip_value_max.copy_(self._amax.max())
            self.clip.clip_value_min.copy_(-self._amax.max())

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs` quantized: its shape and dtype. Raises SuiteError as fake_tensor_quant and the calibrator do."""
        if self._disabled:
            return inputs
        if self._if_calib:
            self._watching().collect(inputs)
        if self._if_clip or (self._if_quant and self._desc.learn_amax):
            self._clips()
            inputs = self.clip(inputs)
        return self._quantize(inputs) if self._if_quant else inputs

    def _quantize(self, inputs: Tensor) -> Tensor:
        desc = self._desc
        if desc.learn_amax:
            amax = torch.maximum(-self.clip.clip_value_min, self.clip.clip_value_max).detach()
        elif self.amax is not None:
            if self._amax.device != inputs.device:
                self._amax = self._amax.to(inputs.device)
            amax = self._amax
        else:
            amax = reduce_amax(inputs, desc.axis)
        if desc.scale_amax is not None:
            amax = amax * desc.scale_amax
        if desc.fake_quant and TensorQuantizer.use_fb_fake_quant:
            return native_fake_quant(inputs, amax, desc.num_bits, desc.unsigned)
        if desc.fake_quant:
            checked = amax is not self.amax or not self._is_known(amax)
            return fake_tensor_quant(
                inputs, amax, desc.num_bits, desc.unsigned, desc.narrow_range, checked=checked
            )
        integers, self._scale = tensor_quant(inputs, amax, desc.num_bits, desc.unsigned, desc.narrow_range)
        return integers

    def _is_known(self, amax: Tensor) -> bool:
        """Whether the fixed `amax` is good as it is now: it is looked at where it was changed, not at each tensor,
        since that waits for a GPU, and ends the graph of torch.compile."""
        if torch.compiler.is_compiling():
            return self._known is not None
        if amax.is_inference():  # which has no version
            return False
        if self._known is None or self._known[0] is not amax or self._known[1] != amax._version:
            good = bool(((amax >= 0) & (amax <= LARGEST_KNOWN)).all())
            self._known = (amax, amax._version) if good else None
        return self._known is not None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}_amax")
        if saved is not None and self.amax is None:
            self.register_buffer("_amax", torch.empty_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """The bits, the amax and what is switched on, on one line."""
        if self._disabled:
            return "disabled"
        amax = "dynamic"
        if self.amax is not None:
            low, high = float(self._amax.min()), float(self._amax.max())
            amax = (
                f"{high:.4f}" if self._amax.numel() == 1 else f"[{low:.4f}, {high:.4f}]({self._amax.numel()})"
            )
        switched = {"quant": self._if_quant, "clip": self._if_clip, "calib": self._if_calib}
        return " ".join(
            [
                f"{'unsigned ' if self.unsigned else ''}{self.num_bits}bit",
                "per-tensor" if self.axis is None else f"axis={self.axis}",
                f"amax={amax}",
                f"calibrator={type(self._calibrator).__name__}",
                *(word for word, on in switched.items() if on),
            ]
        )
