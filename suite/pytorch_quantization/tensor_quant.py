"""How a tensor is to be quantized, and the quantization: scale-only and symmetric, by a largest magnitude "amax".

Source 004's formula; the arithmetic is that of suite.arithmetic.affine. An amax has any shape that broadcasts to its
tensor's.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid, fake_quantize
from suite.ranges.observers import extremes
from suite.recipe.errors import SuiteError, check_bits, check_choice

LARGEST_KNOWN = 1e38
"""Of an amax whose scale needs no look at the ends of float32."""

Axis = int | tuple[int, ...] | None
"""The dimensions that keep an amax of their own, negative ones from the end; None is one amax for the tensor."""


def check_axis(axis: object) -> None:
    """Raise SuiteError unless `axis` is an Axis."""
    axes = axis if isinstance(axis, tuple) else (0 if axis is None else axis,)
    if not all(type(item) is int for item in axes):
        raise SuiteError(f"axis {axis!r} is no dimension; use None, a whole number or a tuple of them")


def amax_of(value: Any) -> Tensor:
    """A copy of `value` in float32, a tensor on its device. Raises SuiteError unless it is finite and at least 0."""
    try:
        amax = torch.as_tensor(value, dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SuiteError(f"amax {value!r} is no number, list, array or tensor of them: {error}") from None
    _check_amax(amax)
    return amax


@dataclass(frozen=True)
class QuantDescriptor:
    """How to quantize a tensor; equal descriptors compare equal.

    num_bits: 2 to 16. axis: see Axis. amax: a float, list, array or tensor of magnitudes >= 0, kept as nested tuples
    of float32 values; where given it is used as it is, whatever the axis. Without it the amax is dynamic.
    unsigned: integers 0..2^bits - 1, for tensors without negative values. narrow_range: leave out -2^(bits-1).
    calib_method: "max", or "histogram" for entropy, MSE and percentile (per tensor only). scale_amax: a factor on
    every amax. learn_amax: clip at a learned amax (per tensor only). fake_quant: False gives the integers themselves.
    Raises SuiteError where a field is out of range or two exclude one another.
    """

    num_bits: int = 8
    name: str | None = None
    _: KW_ONLY
    fake_quant: bool = True
    axis: Axis = None
    amax: Any = None
    learn_amax: bool = False
    scale_amax: float | None = None
    calib_method: str = "max"
    unsigned: bool = False
    narrow_range: bool = True

    def __post_init__(self) -> None:
        check_bits("num_bits", self.num_bits)
        check_choice("calib_method", self.calib_method, ("max", "histogram"))
        check_axis(self.axis)
        if self.calib_method == "histogram" and self.axis is not None:
            raise SuiteError(
                f'calib_method "histogram" is per tensor, got axis {self.axis!r}; use "max" or no axis'
            )
        factor = self.scale_amax
        if factor is not None and not (isinstance(factor, int | float) and 0 < factor < float("inf")):
            raise SuiteError(f"scale_amax must be above 0 and finite, got {factor!r}")
        if self.name is not None and not isinstance(self.name, str):
            raise SuiteError(f"name must be a text or None, got {self.name!r}; the amax is given by keyword")
        if self.amax is not None:
            object.__setattr__(self, "amax", _nested(amax_of(self.amax).tolist()))
        if self.learn_amax and (self.axis is not None or isinstance(self.amax, tuple)):
            raise SuiteError(
                "learn_amax learns one amax for the tensor; give it no axis and at most one amax"
            )

    @property
    def grid(self) -> Grid:
        """The integers that the tensor may take."""
        return _grid(self.num_bits, self.unsigned, self.narrow_range)

    def dict(self) -> dict[str, Any]:
        """num_bits, name and the fields that are not as by default: QuantDescriptor(**descriptor.dict()) is equal."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        default = {field.name: field.default for field in fields(self)}
        always = ("num_bits", "name")
        return {name: value for name, value in shown.items() if name in always or value != default[name]}


QUANT_DESC_8BIT_PER_TENSOR = QuantDescriptor()
QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR = QuantDescriptor(unsigned=True)
QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL = QuantDescriptor(axis=0)
QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL = QuantDescriptor(axis=0)
QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL = QuantDescriptor(axis=0)
QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW = QuantDescriptor(axis=0)


def fake_tensor_quant(
    inputs: Tensor,
    amax: Tensor,
    num_bits: int = 8,
    unsigned: bool = False,
    narrow_range: bool = True,
    *,
    checked: bool = True,
) -> Tensor:
    """`inputs` rounded to the grid and mapped back: shape and dtype of `inputs`; amax broadcasts to its shape.

    The step is amax / (2^(bits-1) - 1), unsigned amax / (2^bits - 1). The gradient is that of suite.arithmetic.affine.
    Raises SuiteError at an amax that is negative, not finite or of another shape, and at unsigned negative inputs.
    checked: off where the amax is known to be 0 to LARGEST_KNOWN, so that nothing waits for a GPU to be asked.
    """
    grid = _grid(num_bits, unsigned, narrow_range)
    scale, zero_point = _scale(inputs, amax, grid, checked)
    return fake_quantize(inputs, scale, zero_point, grid.quant_min, grid.quant_max)


def tensor_quant(
    inputs: Tensor, amax: Tensor, num_bits: int = 8, unsigned: bool = False, narrow_range: bool = True
) -> tuple[Tensor, Tensor]:
    """(integers in the dtype and shape of `inputs`, scale), with integers / scale ~ inputs as NVIDIA has it.

    Arguments and errors are those of fake_tensor_quant. The gradient holds the factor `scale`; NVIDIA's does not.
    Raises SuiteError where the dtype does not hold all integers of the grid.
    """
    grid = _grid(num_bits, unsigned, narrow_range)
    if inputs.is_floating_point() and grid.quant_max > 2 / torch.finfo(inputs.dtype).eps:
        raise SuiteError(
            f"{inputs.dtype} does not hold all integers up to {grid.quant_max}; give float32 or fewer bits"
        )
    scale, zero_point = _scale(inputs, amax, grid)
    steps = inputs.float() * scale.reciprocal()
    integers = fake_quantize(steps, torch.ones_like(scale), zero_point, grid.quant_min, grid.quant_max)
    return integers.to(inputs.dtype), scale.reciprocal()


def native_fake_quant(inputs: Tensor, amax: Tensor, num_bits: int = 8, unsigned: bool = False) -> Tensor:
    """`inputs` by torch.fake_quantize_* on the full range: -2^(bits-1) to 2^(bits-1) - 1, unsigned 0 to 2^bits - 1.

    float32, one amax or one for each index of a single dimension. Raises SuiteError as fake_tensor_quant does, and at
    another dtype or an amax along several dimensions.
    """
    grid = Grid(num_bits, not unsigned)
    scale, _ = _scale(inputs, amax, grid)
    if inputs.dtype != torch.float32:
        raise SuiteError(f"torch's own fake quantize is exported in float32, got {inputs.dtype}; disable AMP")
    if scale.numel() == 1:
        return torch.fake_quantize_per_tensor_affine(inputs, scale.item(), 0, grid.quant_min, grid.quant_max)
    kept = [dim for dim, size in enumerate(scale.shape, inputs.dim() - scale.dim()) if size > 1]
    if len(kept) > 1:
        raise SuiteError(
            f"torch's own fake quantize has one axis, got an amax of shape {list(scale.shape)}; "
            "use an amax along one dimension"
        )
    flat = scale.detach().flatten()
    zero_point = torch.zeros_like(flat, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        inputs, flat, zero_point, kept[0], grid.quant_min, grid.quant_max
    )


@torch.no_grad()
def reduce_amax(inputs: Tensor, axis: Axis = None) -> Tensor:
    """The largest magnitude: [] per tensor, else the shape of `inputs` with 1 for each dimension not in `axis`.

    One value is always of shape []. Raises SuiteError where `axis` is no dimension of `inputs` or there are no values.
    """
    dims = inputs.dim()
    axes = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
    if not all(-dims <= dim < dims for dim in axes):
        raise SuiteError(
            f"axis {axis} is out of range for a tensor of shape {list(inputs.shape)}; use {-dims} to {dims - 1}"
        )
    kept = sorted({dim % dims for dim in axes})
    if not kept:
        low, high = extremes(inputs)
        return torch.maximum(-low, high)
    rows = inputs.movedim(kept, list(range(len(kept)))).flatten(0, len(kept) - 1)
    low, high = extremes(rows.unsqueeze(-1), 0)
    shape = [size if dim in kept else 1 for dim, size in enumerate(inputs.shape)]
    return torch.maximum(-low, high).reshape(shape if low.numel() > 1 else [])


def _grid(num_bits: int, unsigned: bool, narrow_range: bool) -> Grid:
    return Grid(num_bits, not unsigned, narrow_range and not unsigned)


def _scale(inputs: Tensor, amax: Tensor, grid: Grid, checked: bool = True) -> tuple[Tensor, Tensor]:
    if checked:
        _check_amax(amax)
    if amax.dim() > inputs.dim() or any(
        size not in (1, whole) for size, whole in zip(amax.shape[::-1], inputs.shape[::-1], strict=False)
    ):
        raise SuiteError(
            f"an amax of shape {list(amax.shape)} does not broadcast to a tensor of shape {list(inputs.shape)}; "
            "give one value or one a kept dimension, such as [channels, 1, 1, 1]"
        )
    if not grid.signed and inputs.numel() and bool(inputs.min() < 0):
        raise SuiteError(f"unsigned quantization met {float(inputs.min()):g}; use unsigned=False")
    return grid.symmetric(amax, checked=checked)


def _check_amax(amax: Tensor) -> None:
    if not bool((amax >= 0).all()) or not bool(amax.isfinite().all()):
        wrong = amax[~((amax >= 0) & amax.isfinite())].flatten()[0]
        raise SuiteError(f"amax must be finite and at least 0, got {float(wrong)}; has the tensor diverged?")


def _nested(value: Any) -> Any:
    return tuple(_nested(item) for item in value) if isinstance(value, list) else value
