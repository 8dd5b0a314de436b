"""A recipe as a list of steps, and the loop that applies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from suite.quantizers.layers import finite_copy
from suite.ranks import give_back_freed_memory
from suite.recipe import Calibration, Recipe
from suite.recipe.method import Feed, Step
from suite.steps import FoldBatchNorm, FreezeBatchNorm, ReestimateBatchNorm


def quantized(steps: Sequence[Step], feed: Feed, start: nn.Module | None = None) -> nn.Module:
    """A copy of the feed's reference network, or of a network `start` of the same layers, to which the `steps` were
    applied, in order.

    Raises SuiteError where a weight of the network is inf or NaN.
    """
    model = finite_copy(feed.reference if start is None else start)
    for number, step in enumerate(steps):
        feed.begin(number)
        model = step.apply(model, feed)
        give_back_freed_memory()
        feed.applied(step, model)
    return model


def steps_of(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of the recipe's method, with BatchNorm and the first and the last layer treated as the recipe says."""
    method = recipe.method
    steps = [_with_first_last(step, recipe.edge_bits) for step in method.steps()]
    if recipe.batch_norm == "folded":
        steps.insert(0, FoldBatchNorm())
    if recipe.batch_norm == "frozen":
        steps.insert(0, FreezeBatchNorm())
    if recipe.batch_norm == "re-estimated":
        steps.append(ReestimateBatchNorm(method.calibrates_on or Calibration()))
    return tuple(steps)


def _with_first_last(step: Any, bits: int | None) -> Step:
    changed: Step = replace(step, first_last=bits) if bits and step.sets_widths else step
    return changed
