"""Knowledge distillation: a network learns what its teacher answers (arXiv 1503.02531)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def taught_by(network: nn.Module, temperature: float, labels: float) -> Distilled:
    """Distilled by a copy of `network` that evaluates and does not train."""
    teacher = copy.deepcopy(network).eval().requires_grad_(False)
    return Distilled(teacher, temperature, labels)
