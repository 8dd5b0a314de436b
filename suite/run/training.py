"""fit() and evaluate() as a run has them: recorded, saved, stopped where that is asked for, resumed."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from suite.learned.hardening import hardened_parts
from suite.learned.quantizer import LearnedQuantizer, learned_values
from suite.networks import outputs
from suite.quantizers.batch_norm import FrozenBatchNorm, estimate_again
from suite.quantizers.layers import bake
from suite.quantizers.model_size import size_mb
from suite.recipe import Pretrained, Sgd, Training
from suite.recipe.errors import in_a_line
from suite.record.journal import counted_metrics, read_events
from suite.run import layer_report
from suite.run.attempt import CHECK_EVERY, Attempt
from suite.stop import ASKING
from suite.train.evaluate import Score, evaluate
from suite.train.fit import Loss, Step, fit
from suite.train.oscillation import OscillationControl

Confusion = Callable[[], dict[str, Any]]


def train(
    attempt: Attempt,
    model: nn.Module,
    float_stage: Training | Pretrained,
    sgd: Sgd,
    seed: int,
    state: dict[str, Any] | None,
    saved_as: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    count_from: int = 0,
    loss: Loss | None = None,
    control: OscillationControl | None = None,
) -> Step:
    """Train `model` in place from `state`; evaluate as `sgd` says, but for the last epoch. Returns the last step.

    saved_as: what is saved to resume from, made of fit's own state; count_from: of Attempt.save_or_stop.
    """
    images = attempt.images(float_stage.dataset, "train")
    compiled = not eager_because(attempt.ranks.device)
    began, images_before = time.monotonic(), None
    for number, step in enumerate(
        fit(model, images, sgd, seed, attempt.ranks, state, compiled, loss, control), start=1
    ):
        if number > 1:  # the second step is compiled, which may take minutes
            attempt.last_step_at = time.monotonic()
        if images_before is None:
            images_before = 0 if step.batches == 1 else step.images
        rate = (step.images - images_before) / (time.monotonic() - began)
        if not step.epoch_ended:
            if attempt.ranks.world_size > 1 and step.total % CHECK_EVERY:
                continue
            attempt.save_or_stop(
                count_from + step.total,
                f"epoch {step.epoch}, step {step.total}",
                lambda step=step: saved_as(step.state()),  # type: ignore[misc]
                partial(_record_progress, attempt, step, sgd, len(images), rate),
            )
            continue
        now = step.read()
        attempt.journal.metrics(
            step.epoch,
            train_loss=now.loss,
            train_top1=now.top1,
            train_images_per_s=rate,
            skipped_steps=now.skipped_steps,
            **_learned(model),
        )
        if step.epoch < sgd.epochs and step.epoch % sgd.evaluate_every == 0:
            score(attempt, model, float_stage, step.epoch)
        began, images_before = time.monotonic(), 0
    return step


def _learned(model: nn.Module) -> dict[str, float]:
    """What quantizers learned, as metrics."""
    return {f"learned_{name.replace('.', '_')}": value for name, value in learned_values(model).items()}


def score_start(
    attempt: Attempt,
    model: nn.Module,
    float_stage: Training | Pretrained,
    crops: Iterable[Tensor],
    is_new: bool,
) -> None:
    """Record at step 0 how well a network whose quantizers are to learn does without training: rounded as it is now,
    after calibration, with BatchNorm estimated again on `crops`: some methods multiply weights, and the statistics of
    the float network say nothing about theirs. In a further attempt (not `is_new`) it is what an earlier one recorded.
    """
    if not any(isinstance(module, LearnedQuantizer) for module in model.modules()):
        return
    if is_new:
        rounded = bake(copy.deepcopy(model))
        if not any(isinstance(module, FrozenBatchNorm) for module in rounded.modules()):
            estimate_again(rounded, crops)
        values, _ = score(attempt, rounded, float_stage, 0)
        if learned := _learned(model):
            attempt.journal.metrics(0, **learned)
        attempt.start_top1 = values["top1"]
    elif attempt.journal.writes:
        found, _ = counted_metrics(read_events(attempt.journal.folder))
        recorded = (event["values"].get("top1") for event in found if event["step"] == 0)
        attempt.start_top1 = next((top1 for top1 in recorded if top1 is not None), None)


@cache
def eager_because(device: torch.device) -> str:
    """Why trainings on `device` go without torch.compile; empty where they are compiled.

    A GPU compiles one small kernel to see whether that works: it needs a C compiler and Python's headers. The
    processes that compile for this one begin here, with the signals blocked that ask to stop: a scheduler sends them
    to these processes too, which would end in the middle of a kernel.
    """
    if device.type != "cuda":
        return "on a CPU"
    if os.environ.get("SUITE_COMPILE") == "0":
        return "SUITE_COMPILE=0"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        torch.compile(lambda x: x * 2 + 1, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:
        return in_a_line(error)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ""


def _record_progress(attempt: Attempt, step: Step, sgd: Sgd, images: int, rate: float) -> None:
    now = step.read()
    part = (step.epoch - 1 + step.images / images) / sgd.epochs
    doing = f"train epoch {step.epoch}/{sgd.epochs}"
    attempt.journal.progress(doing, part, loss=now.loss, top1=now.top1, images_per_s=rate)


def score(
    attempt: Attempt, model: nn.Module, float_stage: Training | Pretrained, step: int
) -> tuple[dict[str, Any], Confusion]:
    """Evaluate on the test split, recorded at `step`. What the outcome holds of it, and the confusion of classes.

    An epoch whose weights are on their levels is compared with the start; before, they are float in part.
    """
    images = attempt.images(float_stage.dataset, "test")
    began = time.monotonic()
    for progress in evaluate(model, images, attempt.ranks):
        attempt.last_step_at = time.monotonic()
        if not isinstance(progress, Score) and step == 0 and attempt.ranks.world_size == 1:
            attempt.stop_if_asked()
            attempt.journal.progress("evaluate", (1 + progress / len(images)) / 2)
    assert isinstance(progress, Score)
    rate = progress.images / (time.monotonic() - began)
    values = {"top1": progress.top1, "top5": progress.top5, "loss": progress.loss}
    values |= {"images_per_s": rate, "model_size_mb": size_mb(model)}
    attempt.journal.metrics(step, **values)
    judged = step > 0 and all(part >= 1 for part in hardened_parts(model))
    if attempt.start_top1 is not None and judged and progress.top1 < attempt.start_top1:
        facts = {"epoch": step, "top1": progress.top1, "start_top1": attempt.start_top1}
        attempt.journal.write("below_start", **facts)
    named = outputs(float_stage.network), images.names or None
    confusion = partial(layer_report.confusion, images.labels, progress.predicted, *named)
    return {**values, "images": progress.images, "correct": progress.packed}, confusion
