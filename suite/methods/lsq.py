"""Learned step size quantization, LSQ (arXiv 1902.08153): weights and step sizes are trained together.

    x ~ round(clamp(x / s, -Qn, Qp)) * s       ds: round(x / s) - x / s inside, -Qn or Qp outside, times 1 / sqrt(N Qp)

Weights are signed, -2^(b-1)..2^(b-1) - 1; an input that was never negative takes 0..2^b - 1. Each has one step size,
or a weight one a channel. N is the number of values of a weight, and of one image's input: the paper leaves open
whether the batch counts. Where the authors begin by 2 * mean|x| / sqrt(Qp) (`initial` "mean"), the default is the
step size of least squared error, of inputs over the calibration images. First and last layer have 8 bits, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from suite.methods.scheme import Scheme
from suite.recipe import FLOAT_BITS, Calibration, Precision, Sgd
from suite.recipe.errors import check_bits, check_choice, check_widths
from suite.recipe.method import Method, Step
from suite.recipe.naming import width_words
from suite.recipe.settings import NEW, Damping, Freezing
from suite.steps import Distillation, LeastError, MeanMagnitude, TrainOn, Uniform
from suite.steps import Lsq as Rounding
from suite.steps.learned import OCTAVES
from suite.steps.rounding import Range

RANGES: dict[str, Range] = {"mse": LeastError(octaves=OCTAVES), "mean": MeanMagnitude()}

FINE_TUNING = Sgd(epochs=1, batch=128, lr=0.01, schedule="cosine", precision=Precision("O0"))
"""The paper's learning rate of weights from a trained network, and one epoch of it."""


@dataclass(frozen=True)
class LearnedMethod(Method):
    """Trains on with `feed`, from the ranges of `calibration`; 2 to 16 bits for weights and inputs, or 32 for float.

    first_last: bits of weight and input of the first and the last layer, 32 for float. distillation: learn what the
    float network answers.
    """

    weight_bits: int = 8
    act_bits: int = 8
    first_last: int = 8
    feed: Sgd = field(default_factory=lambda: FINE_TUNING)
    calibration: Calibration = field(default_factory=Calibration)
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        check_widths(self, FLOAT_BITS)
        check_bits("first_last", self.first_last, FLOAT_BITS)

    @property
    def batch_norm(self) -> str:
        """Trained with the rest."""
        return "trained"

    @property
    def calibrates_on(self) -> Calibration:
        """Also where inputs stay float: the seed of its draw is that of a training from a checkpoint."""
        return self.calibration

    @property
    def edges(self) -> str:  # type: ignore[override]
        """The width of the first and the last layer."""
        return width_words(self.first_last)

    @property
    def weights(self) -> Uniform:
        """How weights are rounded."""
        raise NotImplementedError

    @property
    def inputs(self) -> Uniform:
        """How inputs are rounded."""
        raise NotImplementedError

    def steps(self) -> tuple[Step, ...]:
        """Quantizers go in, ranges from calibration are where learning begins, and what is learned is rounded."""
        return Scheme(
            *(self.weight_bits, self.act_bits, self.weights, self.inputs, self.first_last),
            calibration=self.calibration,
            training=(self.training,),
        ).steps()

    @property
    def training(self) -> TrainOn:
        """How it is trained."""
        return TrainOn(self.feed, self.distillation)


@dataclass(frozen=True)
class Lsq(LearnedMethod):
    """step_lr: times the learning rate, for the step sizes; step_weight_decay: theirs. damping, freezing: of weights
    that jump between levels."""

    per: Literal["tensor", "channel"] = "tensor"
    initial: Literal["mse", "mean"] = "mse"
    step_lr: float = 1.0
    step_weight_decay: float = 0.0
    damping: Damping | None = field(default=None, metadata=NEW)
    freezing: Freezing | None = field(default=None, metadata=NEW)

    name: ClassVar[str] = "lsq"
    revision: ClassVar[int] = 2
    """1 searched the first step size of a weight over two octaves, too few at 2 bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("initial", self.initial, RANGES)
        check_choice("per", self.per, ("tensor", "channel"))

    @property
    def weights(self) -> Uniform:
        return self._rounding(self.per)

    @property
    def inputs(self) -> Uniform:
        return self._rounding(unsigned=True)

    @property
    def training(self) -> TrainOn:
        return replace(super().training, damping=self.damping, freezing=self.freezing)

    def _rounding(self, per: Literal["tensor", "channel"] = "tensor", unsigned: bool = False) -> Uniform:
        return Rounding(
            RANGES[self.initial],
            per,
            unsigned=unsigned,
            lr_scale=self.step_lr,
            weight_decay=self.step_weight_decay,
        )
