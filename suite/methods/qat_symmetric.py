"""Quantization-aware training, symmetric (source 001).

    q = clamp(round(x * 127 / amax), -128, 127);  x ~ q * amax / 127       at 8 bits

All else is as in `qat_asymmetric`. Where the source misleads, besides: its text divides by 128 (`divide_by_128`), its
code by 127.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from suite.methods.qat_asymmetric import QatAsymmetric

if TYPE_CHECKING:
    from suite.quantize.observers import Observer
    from suite.quantize.quantizer import Mode, Quantizer


@dataclass(frozen=True)
class QatSymmetric(QatAsymmetric):
    """Trains on with `feed`, by default in float32 as the source does; 2 to 16 bits."""

    divide_by_128: bool = False

    name: ClassVar[str] = "qat_symmetric"

    def quantizer(self, bits: int, observer: Observer, mode: Mode, axis: int | None = None) -> Quantizer:
        """A quantizer on the signed grid, zero in its middle."""
        from suite.quantize.affine import Grid
        from suite.quantize.quantizer import Quantizer

        steps = 2 ** (bits - 1) if self.divide_by_128 else None
        return Quantizer(Grid(bits), observer, mode, axis=axis, steps=steps)
