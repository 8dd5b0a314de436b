"""Widths by layer against uniform and against random ones, of the same size and the same bit operations.

One method at every uniform width, and within each budget: widths chosen by each score, and drawn ones. A budget of 3
is the mean bits of a weight, and 3 x 3 bit operations a multiplication: what uniform W3A3 takes. First and last layer
are as the method has them. `adaround`, `qdrop` and `best` learn their rounding, and `lsq` trains, with the widths that
were chosen: for those a few scores and draws are enough for a day.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal, get_args

from suite.methods.adaround import Adaround
from suite.methods.best import Best
from suite.methods.lsq import FINE_TUNING, Lsq
from suite.methods.mixed import Mixed
from suite.methods.mse import Mse
from suite.methods.qdrop import Qdrop
from suite.methods.scheme import Scheme
from suite.recipe import Calibration, Method, Recipe, Sgd
from suite.recipe.errors import SuiteError, check_choice
from suite.steps.assign_widths import By
from suite.sweeps import quick
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork

LEARNED_ROUNDING: dict[str, type[Adaround]] = {"adaround": Adaround, "qdrop": Qdrop, "best": Best}
Base = Literal["mse", "mse_first_last_8", "adaround", "qdrop", "best", "lsq"]

UNIFORM = (8, 6, 5, 4, 3, 2)
SCORES: tuple[By, ...] = ("noise", "logits", "gradient", "hessian")


def sweep(
    float_network: FloatNetwork = ON_DIGITS,
    of: Annotated[Base, "the method whose layers get widths"] = "mse_first_last_8",
    budgets: Annotated[tuple[float, ...], "mean bits of a weight"] = (4.0, 3.0, 2.5),
    scores: Annotated[tuple[str, ...], "what widths are chosen by"] = SCORES,
    draws: Annotated[int, "random choices of widths for each budget"] = 20,
    seeds: Annotated[int, "draws of the calibration images or, on digits, trainings"] = 1,
    uniform: Annotated[tuple[int, ...], "bits of the networks whose layers are all alike"] = UNIFORM,
    iterations: Annotated[int, "of adaround, qdrop and best, each block; 0: as they have it"] = 0,
    epochs: Annotated[int, "that lsq trains; 0: one, on digits two"] = 0,
) -> Sequence[Recipe]:
    """Uniform, chosen and random widths."""
    check_choice("of", of, get_args(Base))
    for score in scores:
        check_choice("scores", score, [by for by in get_args(By) if by not in ("random", "uniform")])
    if not all(min(UNIFORM) <= budget <= max(UNIFORM) for budget in budgets):
        raise SuiteError(f"budgets are mean bits from {min(UNIFORM)} to {max(UNIFORM)}, got {budgets}")
    if iterations and of not in LEARNED_ROUNDING:
        raise SuiteError(
            f"iterations are of {', '.join(LEARNED_ROUNDING)}; {of} learns no rounding: leave it out"
        )
    if epochs and of != "lsq":
        raise SuiteError(f"epochs are those that lsq trains; {of} does not train: leave it out")
    usual = quick.QAT if float_network.weights is None else FINE_TUNING
    sgd = replace(usual, epochs=epochs or usual.epochs)
    recipes = []
    for seed in range(seeds):
        start, calibration = float_network.start(seed), float_network.calibration(seed)
        base = partial(_base, of, calibration=calibration, iterations=iterations, sgd=sgd)
        for method in methods(base, uniform, budgets, scores, draws):
            recipes.append(Recipe(start, method))
    return recipes


def methods(
    of: Callable[[int], Method],
    uniform: Sequence[int],
    budgets: Sequence[float],
    scores: Sequence[str],
    draws: int,
) -> list[Mixed]:
    """Uniform widths, and for each budget those by each of `scores` and `draws` random ones. of: the method, by its
    bits."""
    found = [Mixed(of(bits), by="uniform") for bits in uniform]
    for budget in budgets:
        base, limits = of(math.ceil(budget)), (float(budget), float(budget) ** 2)
        for score in scores:
            found.append(Mixed(base, score, size_bits=limits[0], bops_per_mac=limits[1]))  # type: ignore[arg-type]
        for seed in range(draws):
            drawn = Mixed(base, "random", size_bits=limits[0], bops_per_mac=limits[1], draw_seed=seed)
            found.append(drawn)
    return found


def _base(of: Base, bits: int, calibration: Calibration, iterations: int, sgd: Sgd) -> Method:
    if of == "mse":
        return Mse(bits, bits, feed=calibration)
    if of == "mse_first_last_8":
        return Scheme(bits, bits, first_last=8, calibration=calibration)
    if of == "lsq":
        return Lsq(bits, bits, feed=sgd, calibration=calibration)
    method = LEARNED_ROUNDING[of](bits, bits, feed=calibration)
    return replace(method, iterations=iterations) if iterations else method
