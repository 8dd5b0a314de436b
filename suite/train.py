"""fit(): one plain loop. It never sees methods, files or records; who calls it reads what it yields."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from suite.data import Images, epoch_batches
from suite.precision import Mixed
from suite.ranks import Ranks
from suite.recipe import Sgd
from suite.values import SuiteError


class DivergedError(SuiteError):
    """The loss became inf or NaN."""


@dataclass(frozen=True)
class Step:
    """How far the training is. `loss` is the mean over the epoch at its end, None before; `skipped_steps` counts
    those that an overflow of the scaled loss skipped so far, whose losses are left out."""

    epoch: int
    images: int
    loss: float | None = None
    skipped_steps: int = 0


def learning_rate(sgd: Sgd, epoch: int, step: int, steps: int) -> float:
    """The rate of the batch `step` of `steps` in `epoch`, all counted from 0.

    While warming up, that of the end of the batch, as apex's ImageNet example and so source 000 have it; after that,
    of its beginning.
    """
    if epoch + (step + 1) / steps <= sgd.warmup_epochs:
        return sgd.lr * (epoch + (step + 1) / steps) / sgd.warmup_epochs
    if sgd.schedule == "cosine":
        through = max(0.0, epoch + step / steps - sgd.warmup_epochs) / (sgd.epochs - sgd.warmup_epochs)
        return sgd.lr * (1 + math.cos(math.pi * through)) / 2
    return sgd.lr * sgd.decay ** sum(epoch >= milestone for milestone in sgd.milestones)


def fit(model: nn.Module, images: Images, sgd: Sgd, seed: int, ranks: Ranks) -> Iterator[Step]:
    """Train the float32 `model` in place; yields after each batch, and at an epoch's end with its loss.

    At each epoch's end `model` holds the masters and statistics reached so far. Raises DivergedError on a loss of inf
    or NaN, found at the epoch's end so that the device is never waited for within one.
    """
    mixed = Mixed(model, sgd.precision, lambda parameters: _optimizer(parameters, sgd))
    working = mixed.working
    if ranks.world_size > 1:
        working = nn.parallel.DistributedDataParallel(working)
    steps = math.ceil(len(images) / sgd.batch)
    for epoch in range(sgd.epochs):
        model.train()
        mixed.working.train()
        total = torch.zeros((), device=ranks.device)
        seen = counted = 0
        for number, (x, labels) in enumerate(epoch_batches(images, sgd, seed, epoch, ranks)):
            for group in mixed.optimizer.param_groups:
                group["lr"] = learning_rate(sgd, epoch, number, steps)
            loss = F.cross_entropy(mixed.forward(working, x), labels, label_smoothing=sgd.label_smoothing)
            if mixed.step(loss):
                total += loss.detach() * len(labels)
                counted += len(labels)
            seen += len(labels)
            yield Step(epoch + 1, seen * ranks.world_size)
        mean = float(ranks.sum(total)) / (seen * ranks.world_size)
        if not math.isfinite(mean):
            raise DivergedError(
                f"the loss became {mean} in epoch {epoch + 1}; lower the learning rate of {sgd}"
            )
        ranks.share_buffers(mixed.update_model())
        yield Step(epoch + 1, seen * ranks.world_size, mean, mixed.skipped_steps)


def _optimizer(parameters: object, sgd: Sgd) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        list(parameters),  # type: ignore[call-overload]
        lr=sgd.lr,
        momentum=sgd.momentum,
        weight_decay=sgd.weight_decay,
        nesterov=sgd.nesterov,
    )
