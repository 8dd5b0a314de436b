"""How long each layer takes on a device, measured there: what a budget of milliseconds is counted in."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.recipe import FLOAT_BITS
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted

LayerTime = tuple[str, int, int, float]
"""(layer, bits of its weight, bits of its input, milliseconds) of a kernel; 32 bits are float."""


@dataclass(frozen=True)
class LayerTimes:
    """times: of every kernel that was measured. A layer takes the fastest of those that hold its widths: one of 4 bits
    runs on a kernel of 8 where there is none of 4. Raises SuiteError for what is no LayerTime."""

    times: tuple[LayerTime, ...] = ()

    def __post_init__(self) -> None:
        for time in self.times:
            if not _is_time(time):
                raise SuiteError(
                    f"a layer's time is (layer, weight bits and input bits from 1 to {FLOAT_BITS}, milliseconds "
                    f"above 0), got {time!r}"
                )

    @classmethod
    def read(cls, file: Path | str) -> LayerTimes:
        """Those of a record of `suite latency KEY --layers`. Raises SuiteError where it cannot be read."""
        names = ("name", "weight_bits", "input_bits", "milliseconds")
        try:
            listed = json.loads(Path(file).read_text())["layers"]
            return cls(tuple(tuple(layer[name] for name in names) for layer in listed))
        except SuiteError as error:
            raise SuiteError(f"{file}: {error}; make one with suite latency KEY --layers") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SuiteError(
                f"{file} is no record of layer times: {type(error).__name__}: {error}; make one with "
                f"suite latency KEY --layers"
            ) from error

    def __str__(self) -> str:
        """How many layers, and a checksum that tells measurements apart."""
        layers = len({layer for layer, *_ in self.times})
        return f"of {counted(layers, 'layer')}, {hashlib.sha256(repr(self.times).encode()).hexdigest()[:8]}"

    def milliseconds(self, layer: str, weight_bits: int, input_bits: int) -> float:
        """Of a layer at these widths. Raises SuiteError, naming it, where no kernel holds them."""
        found = [
            time
            for name, weight, act, time in self.times
            if name == layer and weight >= weight_bits and act >= input_bits
        ]
        if not found:
            raise SuiteError(
                f"no time was measured of layer {layer} at {weight_bits} bits and inputs of {input_bits}; measure the "
                f"layers of this network (suite latency KEY --layers), or declare its widths in by_layer"
            )
        return min(found)


def _is_time(time: Any) -> bool:
    if not (isinstance(time, tuple) and len(time) == 4):
        return False
    name, *bits, milliseconds = time
    has_widths = all(type(width) is int and 1 <= width <= FLOAT_BITS for width in bits)
    is_number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return (
        isinstance(name, str)
        and has_widths
        and is_number
        and milliseconds > 0
        and math.isfinite(milliseconds)
    )
