"""Learned step size quantization, LSQ (arXiv 1902.08153): weights and step sizes are trained together.

    x ~ round(clamp(x / s, -Qn, Qp)) * s       ds: round(x / s) - x / s inside, -Qn or Qp outside, times 1 / sqrt(N Qp)

Weights are signed, -2^(b-1)..2^(b-1) - 1; an input that was never negative takes 0..2^b - 1. Each has one step size,
or a weight one a channel. N is the number of values of a weight, and of one image's input: the paper leaves open
whether the batch counts. Where the authors begin by 2 * mean|x| / sqrt(Qp) (`initial` "mean"), the default is the
step size of least squared error, of inputs over the calibration images. First and last layer have 8 bits, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

from suite.methods.scheme import Scheme
from suite.recipe import FLOAT_BITS, Calibration, Precision, Sgd
from suite.recipe.errors import (
    SuiteError,
    check_bits,
    check_choice,
    check_not_negative,
    check_positive,
    check_widths,
)
from suite.recipe.method import Method, Step
from suite.recipe.naming import width_words
from suite.recipe.settings import NEW, Damping, Freezing
from suite.steps import Distillation, Insert, LeastError, MeanMagnitude, TrainOn, Uniform
from suite.steps import Lsq as Rounding
from suite.steps.learned import OCTAVES
from suite.steps.rounding import Range

RANGES: dict[str, Range] = {"mse": LeastError(octaves=OCTAVES), "mean": MeanMagnitude()}

FINE_TUNING = Sgd(epochs=1, batch=128, lr=0.01, schedule="cosine", precision=Precision("O0"))
"""The paper's learning rate of weights from a trained network, and one epoch of it."""


@dataclass(frozen=True)
class LearnedMethod(Method):
    """Trains on with `feed`, from the ranges of `calibration`; 2 to 16 bits for weights and inputs, or 32 for float.

    first_last: bits of weight and input of the first and the last layer, 32 for float; first_last_inputs: of their
    inputs, where these differ. distillation: learn what the float network answers. damping, freezing: of weights that
    jump between levels; only where their step sizes learn, which is in `lsq` and `lsq_plus`.

    Raises SuiteError for a value that a part of it cannot have.
    """

    weight_bits: int = 8
    act_bits: int = 8
    first_last: int = 8
    feed: Sgd = field(default_factory=lambda: FINE_TUNING)
    calibration: Calibration = field(default_factory=Calibration)
    distillation: Distillation | None = None
    damping: Damping | None = field(default=None, metadata=NEW, kw_only=True)
    freezing: Freezing | None = field(default=None, metadata=NEW, kw_only=True)
    first_last_inputs: int | None = field(default=None, metadata=NEW, kw_only=True)

    def __post_init__(self) -> None:
        check_widths(self, FLOAT_BITS)
        check_bits("first_last", self.first_last, FLOAT_BITS)
        check_bits("first_last_inputs", self.first_last_inputs, None, FLOAT_BITS)
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        check_positive(self, **{name: value for name, value in named.items() if name.endswith("_lr")})
        decays = {name: value for name, value in named.items() if name.endswith("_weight_decay")}
        check_not_negative(self, **decays)
        inserted = [step for step in self.steps() if isinstance(step, Insert)]  # the parts check the rest
        if self.damping or self.freezing:
            self._check_oscillation_control(any(type(step.weights) is Rounding for step in inserted))

    def _check_oscillation_control(self, has_steps: bool) -> None:
        """Raise SuiteError where no weight can be damped or frozen. has_steps: weights have step sizes that learn."""
        what = " and ".join(name for name in ("damping", "freezing") if getattr(self, name))
        if not has_steps or self.weight_bits == self.first_last == FLOAT_BITS:
            raise SuiteError(
                f"{what} is not for {self.name} at {width_words(self.weight_bits)}: it has no weights whose step "
                f"sizes learn; use lsq or lsq_plus, or leave it out"
            )
        if self.freezing and min(self.weight_bits, self.first_last) > self.freezing.max_bits:
            raise SuiteError(
                f"freezing is of weights of at most {self.freezing.max_bits} bits; {self.name} has "
                f"{self.weight_bits}, and {self.first_last} in the first and the last layer; raise max_bits"
            )

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
        if self.first_last_inputs is None:
            return width_words(self.first_last)
        return f"weights {width_words(self.first_last)}, inputs {width_words(self.first_last_inputs)}"

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
        insert, *rest = Scheme(
            *(self.weight_bits, self.act_bits, self.weights, self.inputs, self.first_last),
            calibration=self.calibration,
            training=(self.training,),
        ).steps()
        assert isinstance(insert, Insert)
        return (replace(insert, first_last_inputs=self.first_last_inputs), *rest)

    @property
    def training(self) -> TrainOn:
        """How it is trained."""
        return TrainOn(self.feed, self.distillation, self.damping, self.freezing)


@dataclass(frozen=True)
class Lsq(LearnedMethod):
    """step_lr: times the learning rate, for the step sizes; step_weight_decay: theirs."""

    per: Literal["tensor", "channel"] = "tensor"
    initial: Literal["mse", "mean"] = "mse"
    step_lr: float = 1.0
    step_weight_decay: float = 0.0

    name: ClassVar[str] = "lsq"
    revision: ClassVar[int] = 2
    """1 searched the first step size of a weight over two octaves, too few at 2 bits."""

    def __post_init__(self) -> None:
        check_choice("initial", self.initial, RANGES)
        check_choice("per", self.per, ("tensor", "channel"))
        super().__post_init__()

    @property
    def weights(self) -> Uniform:
        return self._rounding(self.per)

    @property
    def inputs(self) -> Uniform:
        return self._rounding(unsigned=True)

    def _rounding(self, per: Literal["tensor", "channel"] = "tensor", unsigned: bool = False) -> Uniform:
        return Rounding(
            RANGES[self.initial],
            per,
            unsigned=unsigned,
            lr_scale=self.step_lr,
            weight_decay=self.step_weight_decay,
        )
