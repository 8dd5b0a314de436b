"""Knowledge distillation: a network learns what its teacher answers (arXiv 1503.02531)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.recipe import Dataset


@dataclass(frozen=True, eq=False)
class Distilled:
    """The loss of a training by a teacher, for `fit`: temperature^2 * KL(teacher || student), of logits divided by
    `temperature`, plus `labels` * the cross entropy with the labels.

    The teacher computes in float32 whatever the precision of the training, evaluating.
    """

    teacher: nn.Module
    temperature: float
    labels: float = 0.0

    def __call__(self, x: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum over the images `x` [n, 3, size, size] with student's `logits` and `labels`, float32 []."""
        with torch.no_grad():
            answers = F.softmax(self.teacher(x).float() / self.temperature, dim=1)
        own = F.log_softmax(logits / self.temperature, dim=1)
        loss = F.kl_div(own, answers, reduction="sum") * self.temperature**2
        return loss + self.labels * F.cross_entropy(logits, labels, reduction="sum") if self.labels else loss


class Renormalized(nn.Module):
    """A network for images that were normalized otherwise than those that it was trained with, one mean and one
    standard deviation a channel each."""

    factor: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, given: Dataset, own: Dataset) -> None:
        super().__init__()
        self.network = network
        mean, std, own_mean, own_std = (
            torch.tensor(one, dtype=torch.float64)[:, None, None]
            for one in (given.mean, given.std, own.mean, own.std)
        )
        self.register_buffer("factor", (std / own_std).float())
        self.register_buffer("shift", ((mean - own_mean) / own_std).float())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x.float() * self.factor + self.shift)
        return result


def taught_by(network: nn.Module, temperature: float, labels: float) -> Distilled:
    """Distilled by a copy of `network` that evaluates and does not train."""
    teacher = copy.deepcopy(network).eval().requires_grad_(False)
    return Distilled(teacher, temperature, labels)
