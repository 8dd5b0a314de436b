"""What a method of quantization is, and how its configuration reads."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, Protocol

from suite.recipe.serialize import flat
from suite.recipe.settings import (
    Calibration,
    Sgd,
)

FLOAT_BITS = 32
"""The width of what is not quantized."""


BatchNorm = Literal["kept", "folded", "frozen", "re-estimated"]
"""Kept: as the method has it. Folded into the convolutions before quantizing. Frozen: statistics
that stay while training. Re-estimated: statistics of the quantized network, of images cropped as for training."""


class Method(Protocol):
    """A way to quantize: prepare it, feed it, convert it. Implementations are frozen dataclasses.

    One that needs something of the machine also has `check()`, which raises SuiteError where that is missing; it is
    asked before a sweep starts. One whose `from_scratch` is true is given the network as it was initialized. One that
    treats BatchNorm its own way says how in `batch_norm`, and the first and last layer in `edges`; one that quantizes
    by surgery.Quantized modules alone has a true `layerwise`, and its edges can be given a width. One whose `observes`
    is true is not fed batches: take_ranges(model, seen) is given what histogram.observe saw of them.
    """

    name: ClassVar[str]
    """Of the file, in tables, and in keys and records, which is why it never changes."""
    revision: ClassVar[int]
    """Raised when the arithmetic changes, so that no older result is reused."""

    @property
    def weight_bits(self) -> int:
        """Bits of a stored weight; 32 is float."""

    @property
    def act_bits(self) -> int:
        """Bits of an activation; 32 is float."""

    @property
    def feed(self) -> Calibration | Sgd | None:
        """The data the method needs between prepare and convert."""

    def prepare(self, model: Any) -> Any:
        """A copy of the float `model` (nn.Module) that observes or fake-quantizes; `model` is unchanged."""

    def convert(self, model: Any) -> Any:
        """The model to evaluate, from what `prepare` gave and `feed` was fed to."""


def method_name(method: Method) -> str:
    """The name of the method, as `k_sigma`: of its file, of its rows in tables, and in keys."""
    return method.name


def _width(bits: int) -> str:
    return "float" if bits == FLOAT_BITS else f"{bits} bits"


def _variations(method: Any) -> list[str]:
    """The fields that differ from their defaults, but for the widths: `train_mode=True` is `train mode`."""
    words = [] if method.feed is None else _feed_variations(method)
    for item in dataclasses.fields(method):
        value = getattr(method, item.name)
        if item.name not in ("weight_bits", "act_bits", "feed") and value != item.default:
            label = item.name.replace("_", " ")
            words.append(label if value is True else f"no {label}" if value is False else f"{label} {value}")
    return words


def _feed_variations(method: Any) -> list[str]:
    """What the feed has that the method's default feed has not, but for the seed, which every name ends with."""
    usual = type(method)().feed
    told = {name: value for name, value in flat(method.feed).items() if name != "seed"}
    changed = {name: value for name, value in told.items() if value != flat(usual or Calibration()).get(name)}
    words = [f"no {name}" if value is False else f"{value} {name}" for name, value in changed.items()]
    return words if usual else ["calibrated", *words]
