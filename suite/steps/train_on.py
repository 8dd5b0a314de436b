"""Training as a step: of the network with its quantizers in, on from the float weights or anew."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from suite.recipe import Pretrained, Sgd, Training
from suite.recipe.errors import check_not_negative, check_positive
from suite.recipe.method import Feed, Step
from suite.recipe.settings import NEW, Damping, Freezing

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StartUntrained(Step):
    """The network is taken as it was before its float training, so that a quantized training is one from scratch."""

    starts_untrained: ClassVar[bool] = True

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """The untrained network instead of `model`; it becomes the reference."""
        untrained = feed.untrained()
        feed.reference = untrained
        return copy.deepcopy(untrained)


@dataclass(frozen=True)
class Distillation:
    """Training learns what a float network answers: temperature^2 * KL(float || quantized), of logits divided by
    `temperature`, plus `labels` * cross entropy. By default as SQAKD (AISTATS 2024), without labels.

    teacher: the float network, any Training or checkpoint of the same images and classes; None is the one that is
    quantized. Its images are normalized as it was trained with.
    """

    temperature: float = 4.0
    labels: float = 0.0
    teacher: Training | Pretrained | None = field(default=None, metadata=NEW)

    def __post_init__(self) -> None:
        check_positive(self, temperature=self.temperature)
        check_not_negative(self, labels=self.labels)


@dataclass(frozen=True)
class TrainOn(Step):
    """Train on. A quantizer whose range is updated by training does so meanwhile."""

    trains: Sgd
    distillation: Distillation | None = field(default=None, metadata=NEW)
    damping: Damping | None = field(default=None, metadata=NEW)
    freezing: Freezing | None = field(default=None, metadata=NEW)

    takes_long: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Any, ...]:
        """The teacher's stage."""
        by = self.distillation
        return (by.teacher,) if by and by.teacher else ()

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself. Raises SuiteError where weights are to be damped or frozen and no step size learns."""
        from suite.train.distillation import taught_by
        from suite.train.oscillation import OscillationControl

        by = self.distillation
        loss = taught_by(feed.teacher(by.teacher), by.temperature, by.labels) if by else None
        if not self.damping and not self.freezing:
            feed.train(model, self.trains, loss)
            return model
        control = OscillationControl(self.damping, self.freezing)
        control.begin(model)
        feed.train(model, self.trains, loss, control)
        control.end(model)
        return model
