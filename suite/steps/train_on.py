"""Training as a step: of the network with its quantizers in, on from the float weights or anew."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from suite.recipe import Sgd
from suite.recipe.method import Feed, Step

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StartUntrained(Step):
    """The network is taken as it was before its float training, so that a quantized training is one from scratch."""

    starts_untrained: ClassVar[bool] = True

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """The untrained network instead of `model`; it becomes the reference."""
        untrained: nn.Module = feed.untrained()
        feed.reference = untrained
        return copy.deepcopy(untrained)


@dataclass(frozen=True)
class TrainOn(Step):
    """Train on. A quantizer whose range is updated by training does so meanwhile."""

    trains: Sgd

    takes_long: ClassVar[bool] = True

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        feed.train(model, self.trains)
        return model
