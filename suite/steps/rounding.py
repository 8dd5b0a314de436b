"""How one tensor is rounded: to which grid, in which range, and when the range is updated.

`Uniform` makes the quantizer of a tensor from a range. The ranges of inputs that need images are of two kinds: those
that TakeRanges computes from shared histograms (MinMax, LeastError, Entropy, Percentile), and those that watch one
batch after the other (CurrentMinMax, MovingMinMax, MovingPercentile, SearchedHistogram).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from suite.recipe.errors import SuiteError, check_bits, check_choice, check_fraction, check_whole
from suite.recipe.settings import NEW

if TYPE_CHECKING:
    from torch import Tensor

    from suite.quantizers.quantizer import Quantizer
    from suite.ranges.histogram import Histograms
    from suite.ranges.observers import Observer


Per = Literal["tensor", "channel"]
GridKind = Literal["narrow", "signed", "affine"]
Updates = Literal["once", "training", "always"]
"""Of Uniform, which says what they mean."""


class Range(Protocol):
    """What a range is taken from, batch by batch."""

    def observer(self, axis: int | None) -> Observer:
        """What watches a tensor for it, per channel of `axis` where that is given."""


class RangeOfHistogram:
    """A range that is computed once, from histograms."""

    def amax(self, seen: Histograms, bits: Sequence[int], unsigned: bool) -> Tensor:
        """float32 [layers, widths]: the largest magnitude that is not clipped; `unsigned` as of Uniform."""
        raise NotImplementedError

    def ends(self, seen: Histograms, bits: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(low, high) for an affine grid, float32 [layers, widths] each: the extremes, clipped at -amax and amax."""
        from suite.ranges.histogram_ranges import clipped

        return clipped(seen, self.amax(seen, bits, unsigned=True))


@dataclass(frozen=True)
class CurrentMinMax:
    """The extremes of the tensor at hand: of a weight as it is, of an input batch by batch."""

    def observer(self, axis: int | None) -> Observer:
        from suite.ranges.observers import Dynamic

        return Dynamic(axis)


@dataclass(frozen=True)
class MinMax(RangeOfHistogram):
    """The extremes of all that was seen."""

    def observer(self, axis: int | None) -> Observer:
        from suite.ranges.observers import MinMax as Watching

        return Watching(axis)

    def amax(self, seen: Histograms, bits: Sequence[int], unsigned: bool) -> Tensor:
        from suite.ranges.histogram_ranges import amax

        return amax(seen, bits)


@dataclass(frozen=True)
class LeastError(RangeOfHistogram):
    """The range of least squared error.

    octaves: of a weight, how far below its largest magnitude the range is searched, in factors of 2. Two are enough
    for one range a channel, not for one of a whole weight at 2 bits. An input's histogram is searched over twelve.
    """

    octaves: int = field(default=2, metadata=NEW)

    def __post_init__(self) -> None:
        check_whole(self, 1, octaves=self.octaves)

    def observer(self, axis: int | None) -> Observer:
        from suite.ranges.observers import LeastError as Watching

        return Watching(axis, self.octaves)

    def amax(self, seen: Histograms, bits: Sequence[int], unsigned: bool) -> Tensor:
        from suite.ranges.histogram_ranges import mse

        return mse(seen, bits, unsigned)

    def ends(self, seen: Histograms, bits: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Both searched, each for itself."""
        from suite.ranges.histogram_ranges import affine_mse

        return affine_mse(seen, bits)


@dataclass(frozen=True)
class Entropy(RangeOfHistogram):
    """The range of least loss of information, by Kullback-Leibler divergence (TensorRT)."""

    def amax(self, seen: Histograms, bits: Sequence[int], unsigned: bool) -> Tensor:
        from suite.ranges.histogram_ranges import entropy

        return entropy(seen, bits, unsigned)


@dataclass(frozen=True)
class Percentile(RangeOfHistogram):
    """The magnitude that `fraction` of all values do not exceed."""

    fraction: float = 0.9999

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)

    def amax(self, seen: Histograms, bits: Sequence[int], unsigned: bool) -> Tensor:
        from suite.ranges.histogram_ranges import percentile

        return percentile(seen, bits, self.fraction)


@dataclass(frozen=True)
class MovingMinMax:
    """A moving average of the batches' extremes; `momentum` weighs the new batch."""

    momentum: float = 0.1

    def __post_init__(self) -> None:
        check_fraction("momentum", self.momentum)

    def observer(self, axis: int | None) -> Observer:
        from suite.ranges.observers import MovingMinMax as Watching

        _whole_tensor(self, axis)
        return Watching(self.momentum)


@dataclass(frozen=True)
class MovingPercentile:
    """A moving average of the batches' percentile of magnitudes; `momentum` weighs the new batch (source 002)."""

    fraction: float = 0.9999
    momentum: float = 0.1

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)
        check_fraction("momentum", self.momentum)

    def observer(self, axis: int | None) -> Observer:
        from suite.ranges.observers import MovingPercentile as Watching

        _whole_tensor(self, axis)
        return Watching(self.fraction, self.momentum)


@dataclass(frozen=True)
class SearchedHistogram:
    """Source 002's histogram: the range of least squared error on the grid of `search_bits`, by default the tensor's
    own; without `search` the extremes."""

    search: bool = True
    search_bits: int | None = None

    def __post_init__(self) -> None:
        check_bits("search_bits", self.search_bits, None)

    def observer(self, axis: int | None) -> Observer:
        from suite.arithmetic.affine import Grid
        from suite.ranges.observers import Histogram

        _whole_tensor(self, axis)
        return Histogram(search=self.search, search_grid=Grid(self.search_bits) if self.search_bits else None)


def _whole_tensor(chosen: object, axis: int | None) -> None:
    if axis is not None:
        raise SuiteError(f"{type(chosen).__name__} has no ranges per channel; use per='tensor'")


@dataclass(frozen=True)
class Uniform:
    """Integers times a scale: x ~ (q - zero_point) * scale.

    per: one scale for the tensor, or one for each output channel of a weight.
    grid: "narrow" is -n..n with n = 2^(bits-1) - 1; "signed" also has -n - 1; "affine" is 0..2^bits - 1 with a
    zero_point between the extremes.
    updates: "once", on what was seen before the weights are rounded; "training", while training too, and evaluation
    uses the last range; "always", for every tensor, in evaluation too.
    unsigned: a tensor that was never negative takes 0..2^bits - 1 instead.
    power_of_two: the largest magnitude is put on 2^(bits-1), 128 at 8 bits, not on the grid's largest integer, as the
    text of source 001 has it.
    keep_size: of a weight w. Once it is rounded to q in its range, the step of each range is multiplied by
    sum(w w) / sum(q w), so that rounding, and above all clipping, leaves the size of a layer's output as it was.
    """

    range: Range = field(default_factory=CurrentMinMax)
    per: Per = "tensor"
    grid: GridKind = "narrow"
    updates: Updates = "once"
    unsigned: bool = False
    power_of_two: bool = False
    keep_size: bool = field(default=False, metadata=NEW)

    def __post_init__(self) -> None:
        check_choice("per", self.per, get_args(Per))
        check_choice("grid", self.grid, get_args(GridKind))
        check_choice("updates", self.updates, get_args(Updates))
        for option in ("keep_size", "power_of_two"):
            if getattr(self, option) and type(self).quantizer is not Uniform.quantizer:
                name = type(self).__name__
                raise SuiteError(
                    f"{name} rounds in a way of its own, which {option} does not change; use Uniform"
                )

    def quantizer(self, bits: int) -> Quantizer:
        """A quantizer of `bits`, 2 to 16, for one tensor."""
        from suite.arithmetic.affine import Grid
        from suite.quantizers.quantizer import Mode, Quantizer, SizeKeeper

        modes: dict[str, Mode] = {"once": "observe", "training": "track", "always": "dynamic"}
        axis = 0 if self.per == "channel" else None
        kind = SizeKeeper if self.keep_size else Quantizer
        return kind(
            Grid(bits, signed=self.grid != "affine", narrow=self.grid == "narrow"),
            self.range.observer(axis),
            modes[self.updates],
            symmetric=self.grid != "affine",
            axis=axis,
            unsigned=self.unsigned,
            steps=2 ** (bits - 1) if self.power_of_two else None,
        )
