"""Roundings with parameters that learn, and the steps with which learning begins.

They need StartLearning and TrainOn after the ranges are known: a Scheme has both where it has `training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from suite.recipe.errors import SuiteError, check_choice, check_not_negative, check_positive
from suite.recipe.method import Feed, Step
from suite.steps.rounding import GridKind, LeastError, Range, RangeOfHistogram, Uniform

if TYPE_CHECKING:
    from torch import Tensor, nn

    from suite.quantizers.quantizer import Quantizer
    from suite.ranges.histogram import Histograms
    from suite.ranges.observers import Observer


OCTAVES = 12
"""Over which the first step size of a weight is searched: one for a whole weight of 2 bits is often more than four
times smaller than its largest magnitude."""


@dataclass(frozen=True)
class MeanMagnitude(RangeOfHistogram):
    """The range of LSQ's first step size, 2 * mean|x| / sqrt(quant_max) (arXiv 1902.08153)."""

    def observer(self, axis: int | None) -> Observer:
        from suite.ranges.mean_magnitude import MeanMagnitude as Watching

        return Watching(axis)

    def amax(self, seen: Histograms, bits: Sequence[int], unsigned: bool) -> Tensor:
        from suite.ranges.mean_magnitude import mean_magnitude

        return mean_magnitude(seen, list(bits), unsigned)


@dataclass(frozen=True)
class Deviations:
    """The range of a weight that reaches `k` standard deviations beyond its mean (LSQ+, arXiv 2004.09576)."""

    k: float = 3.0

    def __post_init__(self) -> None:
        check_positive(self, k=self.k)

    def observer(self, axis: int | None) -> Observer:
        from suite.learned.lsq_plus import Deviations as Watching

        return Watching(axis, self.k)


@dataclass(frozen=True)
class Lsq(Uniform):
    """LSQ: the step size learns with the weights (arXiv 1902.08153), from that of `range`.

    lr_scale: times the learning rate of the training. weight_decay: of the step sizes.
    """

    range: Range = field(default_factory=lambda: LeastError(octaves=OCTAVES))
    grid: GridKind = "signed"
    lr_scale: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, lr_scale=self.lr_scale)
        check_not_negative(self, weight_decay=self.weight_decay)

    def quantizer(self, bits: int) -> Quantizer:
        """A quantizer of `bits`, 2 to 16, for one tensor."""
        from suite.learned.lsq import Lsq as Rounds

        return self._made(Rounds, bits)

    def _made(self, kind: type, bits: int, **settings: float) -> Quantizer:
        """One of this `kind`, with settings that it has beside those of all that learn."""
        from suite.arithmetic.affine import Grid
        from suite.learned.quantizer import Learning

        axis = 0 if self.per == "channel" else None
        how = Learning(self.lr_scale, self.weight_decay)
        made: Quantizer = kind(
            Grid(bits, signed=self.grid != "affine"),
            self.range.observer(axis),
            axis=axis,
            unsigned=self.unsigned,
            learning=how,
        )
        vars(made).update(settings)
        return made


@dataclass(frozen=True)
class LsqPlus(Lsq):
    """LSQ+ for inputs: an offset learns beside the step size (arXiv 2004.09576)."""

    grid: GridKind = "affine"

    def quantizer(self, bits: int) -> Quantizer:
        from suite.learned.lsq_plus import LsqPlus as Rounds

        return self._made(Rounds, bits)


@dataclass(frozen=True)
class Pact(Lsq):
    """PACT for inputs: where they are clipped, learns (arXiv 1805.06085)."""

    unsigned: bool = True
    weight_decay: float = 2e-4

    def quantizer(self, bits: int) -> Quantizer:
        from suite.learned.pact import Pact as Rounds

        return self._made(Rounds, bits)


@dataclass(frozen=True)
class OfWeightsOrInputs(Lsq):
    """One that rounds weights in one way and inputs in another."""

    of: Literal["weights", "inputs"] = "weights"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("of", self.of, ("weights", "inputs"))


@dataclass(frozen=True)
class Dorefa(OfWeightsOrInputs):
    """DoReFa (arXiv 1606.06160): `of` "weights" by tanh on -1..1, "inputs" clipped to 0..1. Nothing learns."""

    def quantizer(self, bits: int) -> Quantizer:
        from suite.learned.pact import DorefaInput, DorefaWeight

        return self._made(DorefaWeight if self.of == "weights" else DorefaInput, bits)


@dataclass(frozen=True)
class Ewgs(OfWeightsOrInputs):
    """EWGS (arXiv 2104.00903): both ends of the range learn, and a gradient counts more where it pushes a value
    towards the rounded one: times 1 + `scaling` * sign(gradient) * (value - rounded)."""

    scaling: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, scaling=self.scaling)

    def quantizer(self, bits: int) -> Quantizer:
        from suite.learned.ewgs import Ewgs as Rounds
        from suite.learned.ewgs import EwgsWeight

        return self._made(EwgsWeight if self.of == "weights" else Rounds, bits, scaling=self.scaling)


@dataclass(frozen=True)
class Apot(OfWeightsOrInputs):
    """APoT (arXiv 1909.13144): sums of powers of two, clipped where it learns to; evenly spaced from 8 bits on."""

    def quantizer(self, bits: int) -> Quantizer:
        from suite.learned.apot import ApotInput, ApotWeight

        return self._made(ApotWeight if self.of == "weights" else ApotInput, bits)


@dataclass(frozen=True)
class BinaryRelax(Lsq):
    """BinaryRelax for weights (arXiv 1801.06313): a mean of the weight and its nearest level, whose share reaches 1
    when the part `until` of the training is done."""

    until: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.until <= 1:
            raise SuiteError(
                f"{type(self).__name__}.until must be above 0 and at most 1, the whole training; got {self.until!r}"
            )

    def quantizer(self, bits: int) -> Quantizer:
        from suite.learned.hardening import BinaryRelax as Rounds

        return self._made(Rounds, bits, until=self.until)


@dataclass(frozen=True)
class Parq(BinaryRelax):
    """PARQ for weights (arXiv 2503.15748): a line between two levels that becomes a step; see the method `parq`."""

    steepness: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, steepness=self.steepness)

    def quantizer(self, bits: int) -> Quantizer:
        from suite.learned.hardening import Parq as Rounds

        return self._made(Rounds, bits, until=self.until, steepness=self.steepness)


@dataclass(frozen=True)
class StartLearning(Step):
    """Every range becomes what its rounding learns. After the ranges of the inputs are known, before training."""

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself. Raises SuiteError for an input that saw nothing."""
        from suite.learned.quantizer import start_learning

        start_learning(model)
        return model
