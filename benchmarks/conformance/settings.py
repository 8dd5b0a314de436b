"""What is compared: how a tensor is to be quantized, and the range that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Setting:
    """symmetric: about zero and signed; else unsigned with a zero point. per_channel: of dimension 0."""

    name: str
    bits: int
    symmetric: bool
    per_channel: bool


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("int8 per tensor", 8, True, False),
        Setting("int8 per channel", 8, True, True),
        Setting("int4 per channel", 4, True, True),
        Setting("uint8 with zero point", 8, False, False),
    )
}


@dataclass(frozen=True)
class Range:
    """x ~ (q - zero_point) * scale, q from quant_min to quant_max. scale, zero_point: float32, [] or [channels]."""

    scale: Tensor
    zero_point: Tensor
    quant_min: int
    quant_max: int


class NotOfferedError(Exception):
    """A toolkit has no such setting."""


class Toolkit(Protocol):
    """What an adapter of a toolkit answers. `x` is float32 [channels, values of each]."""

    name: str

    def version(self) -> str:
        """Its version; the toolkit is imported. Raises any error where that cannot be."""

    def range(self, x: Tensor, setting: Setting) -> Range:
        """By its own rule for the extremes. Raises NotOfferedError."""

    def fake(self, x: Tensor, range_: Range, setting: Setting) -> Tensor:
        """`x` rounded in `range_` and mapped back; `x` may ask for a gradient."""
