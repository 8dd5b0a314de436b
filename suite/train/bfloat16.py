"""bfloat16 on a CPU for which torch has no bfloat16 kernels: products in float32, rounded to bfloat16.

There torch sums the products of a convolution in plain loops, at 4 to 14 times the time of float32. The product of two
bfloat16 numbers is exact in float32, and torch's own kernels sum it in float32 too and round once, at the end. So does
this; what remains is the order of the sum, which moves a result by one unit in the last place of bfloat16 at most,
unless it cancels to nearly nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

TORCHS = "torch's"
ROUNDED = "float32, rounded"


@cache
def kernels(device: torch.device) -> str:
    """What multiplies bfloat16 on `device`: TORCHS or, on a CPU for which it has none that are fast, ROUNDED.

    A CPU is asked once a process, with the question by which torch itself chooses (`mkldnn_bf16_device_check` of
    aten/src/ATen/native/mkldnn/Utils.h, torch 2.13): yes from AVX-512 on, with a unit for bfloat16 or without, and on
    ARM with one; no with AVX2, also with AVX2-VNNI-2, whose unit torch does not use.
    """
    if device.type != "cpu":
        return TORCHS
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    fast = built and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return TORCHS if fast else ROUNDED


def products(device: torch.device, half: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Within it products in `half` on `device` are fast: Float32Products where torch's are not, else nothing."""
    if half == torch.bfloat16 and kernels(device) == ROUNDED:
        return Float32Products()  # type: ignore[no-untyped-call]
    return contextlib.nullcontext()


class Float32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, convolutions and products of matrices in bfloat16 are computed in float32 from the bfloat16
    tensors, and their results rounded to bfloat16: forward and, where it runs while entered, backward.

    It works below autograd, autocast and modules. So a layer in a Quantized is seen like any other, autograd keeps
    bfloat16 tensors, and a model that is copied carries nothing. Other dtypes and operations pass. torch.compile
    leaves alone what runs while it is entered.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """`func(*args, **kwargs)`, by way of float32 where it is a product in bfloat16. Shapes and memory formats are
        those of `func`."""
        kwargs = kwargs or {}
        if func not in _products() or not any(map(_is_bfloat16, args)):
            return func(*args, **kwargs)
        done = func(*(value.float() if _is_bfloat16(value) else value for value in args), **kwargs)
        return done.bfloat16() if isinstance(done, Tensor) else tuple(map(_rounded, done))


@cache
def _products() -> frozenset[Any]:
    """What convolutions and linear layers come to below autograd, with their backward."""
    aten = torch.ops.aten
    convolutions = {aten.convolution.default, aten.convolution_backward.default}
    return frozenset(convolutions | {aten.addmm.default, aten.mm.default, aten.bmm.default})


def _is_bfloat16(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def _rounded(gradient: Tensor | None) -> Tensor | None:
    """None stands for a gradient that nobody asked for."""
    return None if gradient is None else gradient.bfloat16()
