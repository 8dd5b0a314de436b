"""fit(): one plain loop. It never sees methods, files or records; who calls it reads what it yields."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.learned.hardening import hardening
from suite.ranges.observers import observe_over
from suite.ranks import Ranks
from suite.recipe import Sgd
from suite.train.optimizer import learning_rate, make_optimizer
from suite.train.oscillation import OscillationControl
from suite.train.precision import Mixed
from suite.train.sync_batch_norm import synchronize_batch_norm
from suite.train.tally import DivergedError, Reading, Tally

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The sum of losses over n images, float32 []: of the images [n, 3, size, size], their logits [n, classes] and labels
[n]."""

SMALLEST_SCALE = 2.0**-24
"""Of a loss: 40 skipped steps in a row from apex's first scale."""


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


def fit(
    model: nn.Module,
    images: Images | Streamed,
    sgd: Sgd,
    seed: int,
    ranks: Ranks,
    state: dict[str, Any] | None = None,
    compiled: bool = False,
    loss: Loss | None = None,
    control: OscillationControl | None = None,
) -> Iterator[Step]:
    """Train the float32 `model` in place, from the beginning or from a Step's `state`; yields after each batch and at
    each epoch's end, when `model` holds the masters and statistics reached so far.

    The gradient is that of the mean over the whole batch, however it splits over the ranks. `compiled` trains through
    torch.compile, but for the very first batch, which gives ranges their shapes, and a last, smaller one, which would
    be compiled for itself. `loss` is instead of cross entropy; `control` damps or freezes weights that oscillate.
    """
    if state:
        _load_model(model, state["model"])
    mixed = Mixed(model, sgd.precision, partial(make_optimizer, sgd))
    tally = Tally(ranks.device)
    start_epoch, first = _restore(state, mixed, tally, ranks) if state else (0, 0)
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
            part = _set_schedules(mixed, sgd, epoch, number, steps)
            whole = min(sgd.batch, len(images) - number * sgd.batch)
            usual = whole == sgd.batch and (epoch, number) != (0, 0)
            logits = mixed.forward(fast if usual else working, x)
            losses = loss(x, logits, labels) if loss else _cross_entropy(sgd, logits, labels)
            overflow = _step(mixed, losses * (ranks.world_size / whole), control, part)
            total = epoch * steps + number + 1
            right = (logits.detach().argmax(1) == labels).sum()
            tally.add(losses.detach(), right, len(labels), overflow, total)
            done = number * sgd.batch + whole
            yield Step(epoch + 1, number + 1, done, total, False, tally, mixed, ranks)
        first = 0
        ranks.share_buffers(mixed.update_model())
        yield Step(epoch + 1, steps, len(images), (epoch + 1) * steps, True, tally, mixed, ranks)


def _set_schedules(mixed: Mixed, sgd: Sgd, epoch: int, number: int, steps: int) -> float:
    """Set all that follows a schedule for the next of `steps` batches an epoch; gives the part of the training that is
    done."""
    for group in mixed.optimizer.param_groups:
        group["lr"] = learning_rate(sgd, epoch, number, steps) * group.get("lr_scale", 1.0)
    part = (epoch * steps + number) / (sgd.epochs * steps)
    for progress in hardening(mixed.working):
        progress.fill_(part)
    return part


def _step(mixed: Mixed, loss: Tensor, control: OscillationControl | None, part: float) -> Tensor:
    """Mixed.step, with what `control` adds."""
    if control is None:
        return mixed.step(loss)
    penalty = control.penalty(mixed.working, part)
    overflow = mixed.step(loss if penalty is None else loss + penalty)
    control.after_step(mixed.working, mixed.stepped, part)
    return overflow


def _restore(state: dict[str, Any], mixed: Mixed, tally: Tally, ranks: Ranks) -> tuple[int, int]:
    """Go on from a Step's `state`; gives how many epochs are done, and how many batches of the next."""
    mixed.load_state(state["mixed"])
    tally.load_state(state["tallies"][ranks.rank])
    _restore_generators(state["generators"][ranks.rank])
    return state["epoch"] - 1, state["batches"]


def _cross_entropy(sgd: Sgd, logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=sgd.label_smoothing, reduction="sum")


def _over_ranks(working: nn.Module, sgd: Sgd, ranks: Ranks) -> nn.Module:
    """The working model whose gradients, ranges and, where asked, BatchNorm are those of all ranks together."""
    if ranks.world_size == 1:
        return working
    observe_over(working, ranks)
    if sgd.sync_batch_norm:
        synchronize_batch_norm(working, ranks)
    with warnings.catch_warnings():  # torch 2.13 renames the option
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            working, broadcast_buffers=False, gradient_as_bucket_view=True
        )


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
