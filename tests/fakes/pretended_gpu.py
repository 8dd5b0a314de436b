"""What a pretended GPU keeps: which storages claim to lie on it, what made the host wait, what it refused."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

aten = torch.ops.aten
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
HERE = {str(file) for file in Path(__file__).resolve().parent.glob("pretend*.py")}


class DeviceError(RuntimeError):
    """What CUDA would refuse."""


SCALARS_MAY_BE_ON_THE_CPU = {
    "add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "pow", "pow_", "remainder", "fmod",
    "eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum", "fmax", "fmin", "atan2", "copysign",
    "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor",
    "bitwise_and_", "bitwise_or_", "__lshift__", "__rshift__", "xlogy", "where", "masked_fill", "masked_fill_",
    "fill_", "fill", "lerp", "lerp_", "addcmul", "addcdiv", "addcmul_", "addcdiv_", "index_put_", "index_put",
}  # fmt: skip
"""Whose TensorIterator takes a CPU tensor of no dimension beside CUDA tensors."""

WAITS = {
    "_local_scalar_dense": "reads a value (item, bool, float, int)",
    "nonzero": "nonzero: how many there are",
    "masked_select": "masked_select: how many there are",
    "_unique2": "unique", "unique_dim": "unique", "unique_consecutive": "unique",
    "equal": "equal",
    "bincount": "bincount reads min and max",
    "repeat_interleave": "repeat_interleave: how many there are",
    "is_set_to": "",
}  # fmt: skip

VIEWS = {
    "view", "detach", "t", "transpose", "permute", "expand", "_unsafe_view", "alias", "slice", "select", "unsqueeze",
    "squeeze", "as_strided", "unbind", "split", "lift_fresh", "is_pinned", "_local_scalar_dense",
}  # fmt: skip
"""What launches nothing."""

FACTORIES = {
    "zeros", "ones", "empty", "full", "arange", "range", "linspace", "logspace", "eye", "rand", "randn", "randint",
    "randperm", "tensor", "as_tensor", "scalar_tensor", "from_numpy", "asarray", "empty_strided", "tril_indices",
    "frombuffer", "load", "get_rng_state", "normal", "multinomial_", "hann_window",
}  # fmt: skip


class Tags:
    """Which storages pretend: "cuda" or "cpu"; those that nobody named are neither."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[StorageWeakRef, str]] = {}
        self._lock = threading.Lock()

    def get(self, x: Tensor) -> str | None:
        try:
            storage = x.untyped_storage()
        except NotImplementedError:
            return None
        found = self._of.get(storage._cdata)
        return found[1] if found else None

    def put(self, x: Tensor, tag: str | None) -> None:
        if tag is None:
            return
        try:
            storage = x.untyped_storage()
        except NotImplementedError:
            return
        with self._lock:
            self._of[storage._cdata] = (
                StorageWeakRef(storage),
                tag,
            )  # the reference keeps the address from reuse
            if len(self._of) > 200_000:
                self._of = {key: kept for key, kept in self._of.items() if not kept[0].expired()}


class Gpu:
    """What a pretended GPU met: `waits` by (what, where), `launches` by operator, `refused` where it only notes."""

    def __init__(self, strict: bool = True, devices: int = 1, index: int = 0) -> None:
        self.tags, self.strict, self.devices = Tags(), strict, devices
        self.device = torch.device("cuda", index)
        self.waits: Counter[tuple[str, str]] = Counter()
        self.launches: Counter[str] = Counter()
        self.launched_at: Counter[tuple[str, str]] = Counter()
        self.locates = False  # which line launched what: slow
        self.refused: Counter[tuple[str, str]] = Counter()
        self.bytes_moved = 0
        self.rng = torch.Generator().get_state()
        self.quiet = 0

    def wait(self, what: str) -> None:
        self.waits[what, where()] += 1

    def refuse(self, what: str) -> None:
        self.refused[what, where()] += 1
        if self.strict:
            raise DeviceError(what)


def where() -> str:
    """The innermost line of ours: not of torch, not of this file."""
    frame: Any = sys._getframe(1)
    lines = []
    while frame is not None:
        file = frame.f_code.co_filename
        if (
            "site-packages" not in file
            and file not in HERE
            and "<" not in file
            and "/lib/python3" not in file
        ):
            lines.append(f"{'/'.join(Path(file).parts[-2:])}:{frame.f_lineno}")
            if len(lines) == 2:
                break
        frame = frame.f_back
    return " < ".join(lines)
