"""A method of your own from parts: how weights and inputs are rounded, at which widths, what is done before and after.

The methods of this package that take their ranges from histograms are schemes too: `amax` (source 004), `mse` and
`entropy`. A scheme in a sweep or in a notebook needs no file:

    Scheme(4, 4, inputs=Uniform(Percentile(0.999)), first_last=8, after=(ReestimateBatchNorm(),))
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, get_args

from suite.recipe import FLOAT_BITS, Calibration
from suite.recipe.errors import SuiteError, check_choice, check_widths
from suite.recipe.method import Method, Step
from suite.recipe.naming import edge_words
from suite.recipe.settings import NEW
from suite.steps import (
    Bake,
    CurrentMinMax,
    Insert,
    LeastError,
    RunCalibration,
    StartLearning,
    TakeRanges,
    Uniform,
)
from suite.steps.insert import Carried, LayerWidths
from suite.steps.rounding import RangeOfHistogram


@dataclass(frozen=True)
class Scheme(Method):
    """2 to 16 bits for weights and for inputs, or 32 for float.

    first_last: the width of the first and the last layer, where it differs; by_layer: (name, weight bits, input bits)
    of others. before: steps on the float network. after: steps on the network with rounded weights. training: steps
    before the weights are rounded for good, as (TrainOn(sgd),); what a rounding learns, it learns there. Without
    `calibration` every batch updates the range of `inputs`. carried, image_bits: as of Insert.

    Raises SuiteError for parts that do not go together.
    """

    weight_bits: int = 8
    act_bits: int = 8
    weights: Uniform = field(default_factory=lambda: Uniform(LeastError(), per="channel"))
    inputs: Uniform = field(default_factory=lambda: Uniform(LeastError(), unsigned=True))
    first_last: int | None = None
    by_layer: LayerWidths = ()
    before: tuple[Step, ...] = ()
    calibration: Calibration | None = field(default_factory=Calibration)
    after: tuple[Step, ...] = ()
    training: tuple[Step, ...] = field(default=(), metadata=NEW)
    carried: Carried = field(default="float", metadata=NEW)
    image_bits: int | None = field(default=None, metadata=NEW)

    name: ClassVar[str] = "scheme"
    revision: ClassVar[int] = 2
    """1 put ranges of histograms on the narrow grid, whatever the grid of `inputs`."""

    def __post_init__(self) -> None:
        check_widths(self, FLOAT_BITS)
        check_choice("carried", self.carried, get_args(Carried))
        if self.training and self.carried == "rounded":
            raise SuiteError(
                "carried='rounded' is for schemes that do not train; use carried='float' with training"
            )
        if not self.calibration and not hasattr(self.inputs.range, "observer"):
            name = type(self.inputs.range).__name__
            raise SuiteError(f"{name} is computed from histograms; give the scheme a calibration")
        if self._of_histograms and self.inputs.updates != "once":
            name = type(self.inputs.range).__name__
            raise SuiteError(
                f"{name} is computed once, from histograms, but updates is {self.inputs.updates!r}; use "
                f"updates='once' or a range that watches batches, such as MovingMinMax"
            )

    @property
    def _of_histograms(self) -> RangeOfHistogram | None:
        """The range of the inputs, where it is computed from histograms."""
        wanted = self.inputs.range
        return wanted if self.calibration and isinstance(wanted, RangeOfHistogram) else None

    @property
    def edges(self) -> str:  # type: ignore[override]
        """The width of the first and the last layer, and of the image where it is another."""
        return edge_words(self.first_last, self.image_bits)

    def steps(self) -> tuple[Step, ...]:
        """The quantizers go in, the inputs get their ranges, the weights are rounded."""
        inputs = replace(self.inputs, range=CurrentMinMax()) if self._of_histograms else self.inputs
        if not self.calibration:
            inputs = replace(inputs, updates="always")
        insert = Insert(
            replace(self.weights, updates="always") if self.training else self.weights,
            inputs,
            self.weight_bits,
            self.act_bits,
            first_last=self.first_last,
            by_layer=self.by_layer,
            carried=self.carried,
            image_bits=self.image_bits,
        )
        training = (StartLearning(), *self.training) if self.training else ()
        return (*self.before, insert, *self._ranges(), *training, Bake(), *self.after)

    def _ranges(self) -> tuple[Step, ...]:
        if not self.calibration or self.act_bits == FLOAT_BITS:
            return ()
        if wanted := self._of_histograms:
            return (TakeRanges(wanted, self.calibration),)
        return (RunCalibration(self.calibration),)
