"""fit(): one plain loop. It never sees methods, files or records; who calls it reads what it yields."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data import Images
from suite.imagenet import Streamed
from suite.observers import observe_over
from suite.precision import Mixed
from suite.ranks import Ranks
from suite.recipe import Sgd
from suite.values import SuiteError


class DivergedError(SuiteError):
    """The loss became inf or NaN."""


SMALLEST_SCALE = 2.0**-24
"""Of a loss: 40 skipped steps in a row from apex's first scale."""


@dataclass(frozen=True)
class Reading:
    """The mean `loss` (nats) and `top1` (percent) of the epoch's images so far, as they were trained on, over all
    ranks. `skipped_steps` counts those that an overflow of the scaled loss skipped since the training began; their
    losses are left out."""

    loss: float
    top1: float
    skipped_steps: int


@dataclass(frozen=True)
class Step:
    """Where the training is: `batches` of `epoch` (counted from 1) are done, `images` of it over all ranks; `total` of
    all steps. At an epoch's end one more comes, with `epoch_ended`, when the model holds what the epoch reached.

    Yielding a step waits for nothing. `read` and `state` wait for the device, and every rank has to call them.
    """

    epoch: int
    batches: int
    images: int
    total: int
    epoch_ended: bool
    _tally: Tally
    _mixed: Mixed
    _ranks: Ranks

    def read(self) -> Reading:
        """How well it goes. Raises DivergedError once the loss has become inf or NaN, or overflows at any scale."""
        if self._mixed.scales and self._mixed.loss_scale < SMALLEST_SCALE:
            raise DivergedError(
                f"gradients overflow at any loss scale (step {self.total}); lower the learning rate"
            )
        return self._tally.read(self._ranks, self._mixed.skipped_steps)

    def state(self) -> dict[str, Any]:
        """All that a training goes on from, bit for bit, as `fit` takes it: plain data and tensors."""
        self.read()
        return {
            "epoch": self.epoch,
            "batches": self.batches,
            "model": self._mixed.update_model().state_dict(),
            "mixed": self._mixed.state(),
            "tallies": self._ranks.each(self._tally.state()),
            "generators": self._ranks.each(_generators()),
        }


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


def fit(
    model: nn.Module,
    images: Images | Streamed,
    sgd: Sgd,
    seed: int,
    ranks: Ranks,
    state: dict[str, Any] | None = None,
    compiled: bool = False,
) -> Iterator[Step]:
    """Train the float32 `model` in place, from the beginning or from a Step's `state`; yields after each batch and at
    each epoch's end, when `model` holds the masters and statistics reached so far.

    The gradient is that of the mean over the whole batch, however it splits over the ranks. `compiled` trains through
    torch.compile, but for the very first batch, which gives ranges their shapes, and a last, smaller one, which would
    be compiled for itself.
    """
    if state:
        _load_model(model, state["model"])
    mixed = Mixed(model, sgd.precision, partial(_optimizer, sgd))
    tally = Tally(ranks.device)
    start_epoch, first = 0, 0
    if state:
        mixed.load_state(state["mixed"])
        tally.load_state(state["tallies"][ranks.rank])
        _restore_generators(state["generators"][ranks.rank])
        start_epoch, first = state["epoch"] - 1, state["batches"]
    working = _over_ranks(mixed.working, sgd, ranks)
    fast: Any = torch.compile(working, dynamic=False) if compiled else working
    steps = math.ceil(len(images) / sgd.batch)
    for epoch in range(start_epoch, sgd.epochs):
        model.train()
        mixed.update_working()
        mixed.working.train()
        if not first:
            tally.start_epoch()
        batches = images.train_batches(sgd, seed, epoch, ranks, first)
        for number, (x, labels) in enumerate(batches, start=first):
            for group in mixed.optimizer.param_groups:
                group["lr"] = learning_rate(sgd, epoch, number, steps)
            whole = min(sgd.batch, len(images) - number * sgd.batch)
            usual = whole == sgd.batch and (epoch, number) != (0, 0)
            logits = mixed.forward(fast if usual else working, x)
            losses = F.cross_entropy(logits, labels, label_smoothing=sgd.label_smoothing, reduction="sum")
            overflow = mixed.step(losses * (ranks.world_size / whole))
            total = epoch * steps + number + 1
            right = (logits.detach().argmax(1) == labels).sum()
            tally.add(losses.detach(), right, len(labels), overflow, total)
            done = number * sgd.batch + whole
            yield Step(epoch + 1, number + 1, done, total, False, tally, mixed, ranks)
        first = 0
        ranks.share_buffers(mixed.update_model())
        yield Step(epoch + 1, steps, len(images), (epoch + 1) * steps, True, tally, mixed, ranks)


def _over_ranks(working: nn.Module, sgd: Sgd, ranks: Ranks) -> nn.Module:
    """The working model whose gradients, ranges and, where asked, BatchNorm are those of all ranks together."""
    if ranks.world_size == 1:
        return working
    observe_over(working, ranks)
    if sgd.sync_batch_norm:
        ranks.synchronize_batch_norm(working)
    with warnings.catch_warnings():  # torch 2.13 renames the option
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(working, broadcast_buffers=False)


def _load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Like load_state_dict, but a range may have got its shape only while training."""
    for name, module in model.named_modules():
        for key, buffer in list(module.named_buffers(recurse=False)):
            saved = state[f"{name}.{key}" if name else key]
            if buffer.shape != saved.shape:
                setattr(module, key, buffer.new_empty(saved.shape))
    model.load_state_dict(state)


def _generators() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _restore_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def check_optimizer(sgd: Sgd) -> None:
    """Raise SuiteError where NVIDIA apex's fused optimizer is asked for and is not installed."""
    if sgd.optimizer == "apex":
        try:
            importlib.import_module("amp_C")
            getattr(importlib.import_module("apex.optimizers"), "FusedSGD")  # noqa: B009
        except (ImportError, AttributeError) as error:
            raise SuiteError(
                f"optimizer 'apex' needs NVIDIA apex built with its CUDA extensions ({error}); install it from "
                f"github.com/NVIDIA/apex (PyPI's apex is another project), or use optimizer 'torch'"
            ) from None


def _optimizer(sgd: Sgd, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    listed = list(parameters)
    how: dict[str, Any] = {
        "lr": sgd.lr,
        "momentum": sgd.momentum,
        "weight_decay": sgd.weight_decay,
        "nesterov": sgd.nesterov,
    }
    if sgd.optimizer == "apex":
        check_optimizer(sgd)
        apex: torch.optim.Optimizer = importlib.import_module("apex.optimizers").FusedSGD(listed, **how)
        return apex
    optimizer = torch.optim.SGD(listed, fused=listed[0].is_cuda, **how)
    if sgd.momentum:
        # The fused one leaves its buffer uninitialized where an overflow skips its first step; zero is as none.
        for parameter in listed:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
