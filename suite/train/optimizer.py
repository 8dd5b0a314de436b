"""The optimizer and the learning rate of each step."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from suite.learned.quantizer import Learned
from suite.recipe import Sgd
from suite.recipe.errors import SuiteError


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


def make_optimizer(sgd: Sgd, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD for the weights and for what quantizers learn, each by its own rate and weight decay.

    Raises SuiteError where NVIDIA apex is asked for and not installed.
    """
    groups = _groups(list(parameters))
    listed = [parameter for group in groups for parameter in group["params"]]
    how: dict[str, Any] = {
        "lr": sgd.lr,
        "momentum": sgd.momentum,
        "weight_decay": sgd.weight_decay,
        "nesterov": sgd.nesterov,
    }
    if sgd.optimizer == "apex":
        check_optimizer(sgd)
        apex: torch.optim.Optimizer = importlib.import_module("apex.optimizers").FusedSGD(groups, **how)
        return apex
    optimizer = torch.optim.SGD(groups, fused=listed[0].is_cuda, **how)
    if sgd.momentum:
        # The fused one leaves its buffer uninitialized where an overflow skips its first step; zero is as none.
        for parameter in listed:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _groups(listed: list[nn.Parameter]) -> list[dict[str, Any]]:
    """The weights, and what quantizers learn: a group for each pair of `lr_scale` and weight decay, with these."""
    groups: list[dict[str, Any]] = [{"params": [p for p in listed if not isinstance(p, Learned)]}]
    for parameter in listed:
        if isinstance(parameter, Learned):
            own = {"lr_scale": parameter.lr_scale, "weight_decay": parameter.weight_decay}
            group = next((one for one in groups[1:] if own.items() <= one.items()), None)
            if group is None:
                groups.append(group := {"params": [], **own})
            group["params"].append(parameter)
    return groups
