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
from suite.recipe import Calibration, Method, Recipe
from suite.recipe.errors import check_choice
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork

Which = Literal["best", "qdrop", "brecq", "adaround", "bias_correction", "dfq", "equalized", "rounding"]

WIDTHS: tuple[tuple[int | None, tuple[tuple[int, int], ...]], ...] = (
    (8, ((4, 4), (3, 3), (2, 4), (2, 2))),
    (None, ((4, 4), (3, 3))),
)
"""Of weights and inputs, for a first and last layer of 8 bits and as the rest."""

DIGITS_ITERATIONS = 100
"""Iterations a block where no checkpoint is given: the digits are few and easy."""


def sweep(
    float_network: FloatNetwork = ON_DIGITS,
    methods: Annotated[tuple[str, ...], "which methods; rounding is to the nearest"] = get_args(Which),
    draws: Annotated[int, "random choices of 1,024 calibration images or, on digits, trainings"] = 3,
    iterations: Annotated[int, "of each block or layer that learns; 0: 1,000, on digits 100"] = 0,
) -> Sequence[Recipe]:
    """Draw after draw, the methods that lose least first."""
    for method in methods:
        check_choice("methods", method, get_args(Which))
    recipes = []
    if not iterations:
        iterations = DIGITS_ITERATIONS if float_network.weights is None else Qdrop().iterations
    for draw in range(draws):
        start, feed = float_network.start(draw), float_network.calibration(draw)
        recipes += [Recipe(start, method) for which in methods for method in _of(which, iterations, feed)]
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
