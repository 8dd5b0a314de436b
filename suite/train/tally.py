"""Loss and accuracy of an epoch, summed on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from suite.ranks import Ranks
from suite.recipe.errors import SuiteError


class DivergedError(SuiteError):
    """The loss became inf or NaN."""


@dataclass(frozen=True)
class Reading:
    """The mean `loss` (nats) and `top1` (percent) of the epoch's images so far, as they were trained on, over all
    ranks. `skipped_steps` counts those that an overflow of the scaled loss skipped since the training began; their
    losses are left out."""

    loss: float
    top1: float
    skipped_steps: int


class Tally:
    """Sums over the epoch's images of this rank, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.right, self.images = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        self.bad_step = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, loss: Tensor, right: Tensor, images: int, overflow: Tensor, step: int) -> None:
        """Take in a step's summed loss and right answers; one that overflowed counts as no images."""
        counts = overflow.squeeze() == 0
        finite = loss.isfinite()
        self.loss += torch.where(counts & finite, loss.double(), 0.0)
        self.right += torch.where(counts, right, 0)
        self.images += torch.where(counts, images, 0)
        self.bad_step = torch.where(counts & ~finite & (self.bad_step == 0), step, self.bad_step)

    def start_epoch(self) -> None:
        """Back to zero."""
        for sums in (self.loss, self.right, self.images):
            sums.zero_()

    def read(self, ranks: Ranks, skipped_steps: int) -> Reading:
        """Over all ranks. Raises DivergedError where a loss was not finite."""
        sums = ranks.sum(torch.stack([self.loss, self.right.double(), self.images.double()]))
        bad_step = int(ranks.max(self.bad_step.clone()))
        if bad_step:
            raise DivergedError(f"the loss became inf or NaN in step {bad_step}; lower the learning rate")
        loss, right, images = sums.tolist()
        if not images:
            return Reading(math.nan, math.nan, skipped_steps)
        return Reading(loss / images, 100 * right / images, skipped_steps)

    def state(self) -> dict[str, Tensor]:
        """The sums, on the CPU."""
        return {name: value.cpu() for name, value in vars(self).items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            getattr(self, name).copy_(value)
