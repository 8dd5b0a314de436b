"""Post-training quantization at 4, 3 and 2 bits, no training: what learns or corrects, and plain rounding.

Each from 1,024 training images, without labels. In both conventions of published tables: the first and the last layer
at 8 bits, and every layer at the same width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from suite.methods.adaround import Adaround
from suite.methods.best import Best
from suite.methods.bias_correction import BiasCorrection
from suite.methods.brecq import Brecq
from suite.methods.dfq import Dfq
from suite.methods.equalized import Equalized
from suite.methods.qdrop import Qdrop
from suite.methods.scheme import Scheme
from suite.recipe import Calibration, Method, Pretrained, Recipe, Training
from suite.recipe.errors import check_choice
from suite.sweeps import cifar10, quick
from suite.sweeps.cifar10 import Classes, Model, Normalization, Shortcut, Weights

Which = Literal["best", "qdrop", "brecq", "adaround", "bias_correction", "dfq", "equalized", "rounding"]

WIDTHS: tuple[tuple[int | None, tuple[tuple[int, int], ...]], ...] = (
    (8, ((4, 4), (3, 3), (2, 4), (2, 2))),
    (None, ((4, 4), (3, 3))),
)
"""Of weights and inputs, for a first and last layer of 8 bits and as the rest."""

ON_DIGITS = 100
"""Iterations a block where no checkpoint is given: the digits are few and easy."""


def sweep(
    weights: Weights = None,
    model: Model = "resnet20",
    shortcut: Shortcut = "A",
    classes: Classes = 10,
    normalization: Normalization = "imagenet",
    methods: Annotated[tuple[str, ...], "which methods; rounding is to the nearest"] = get_args(Which),
    draws: Annotated[int, "random choices of 1,024 calibration images or, on digits, trainings"] = 3,
    iterations: Annotated[int, "of each block or layer that learns; 0: 1,000, on digits 100"] = 0,
) -> Sequence[Recipe]:
    """Draw after draw, the methods that lose least first."""
    for method in methods:
        check_choice("methods", method, get_args(Which))
    recipes = []
    for draw in range(draws):
        start: Training | Pretrained = quick.training(draw)
        if weights is not None:
            start = cifar10.pretrained(weights, model, shortcut, classes, normalization)
        # Recipes from somebody's checkpoint differ by the draw of their calibration images.
        feed = Calibration(seed=draw if weights is not None else 0)
        steps = iterations or (ON_DIGITS if weights is None else Qdrop().iterations)
        recipes += [Recipe(start, method) for which in methods for method in _of(which, steps, feed)]
    return recipes


def _of(which: str, iterations: int, feed: Calibration) -> list[Method]:
    """The method at each width, in both conventions."""
    learning = {"best": Best, "qdrop": Qdrop, "brecq": Brecq, "adaround": Adaround}
    correcting = {"bias_correction": BiasCorrection, "dfq": Dfq, "equalized": Equalized}
    found: list[Method] = []
    for first_last, widths in WIDTHS:
        for w, a in widths:
            if which in learning:
                found.append(learning[which](w, a, first_last, iterations, feed=feed))
            elif which in correcting:
                found.append(correcting[which](w, a, first_last, feed=feed))
            else:
                found.append(Scheme(w, a, first_last=first_last, calibration=feed))
    return found
