"""What BatchNorm's treatment and the width of the first and the last layer are worth, on one float network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from suite.methods.amax import Amax
from suite.methods.histogram import Histogram
from suite.recipe import FLOAT_BITS, Calibration, Method, Recipe
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork

TREATMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"batch_norm": "folded"},
    {"batch_norm": "re-estimated"},
    {"edge_bits": 8},
    {"edge_bits": FLOAT_BITS},
    {"batch_norm": "re-estimated", "edge_bits": 8},
)


def sweep(
    float_network: FloatNetwork = ON_DIGITS,
    calibration_seeds: Annotated[int, "random choices of 1,024 calibration images"] = 1,
) -> Sequence[Recipe]:
    """Each treatment for two sound methods, at 8, 6, 4 and 3 bits."""
    start = float_network.start(seed=0)
    return [
        Recipe(start, method, **treatment)
        for seed in range(calibration_seeds)
        for method in _methods(Calibration(seed=seed))
        for treatment in TREATMENTS
        if treatment.get("edge_bits") != method.weight_bits
    ]


def _methods(calibration: Calibration) -> list[Method]:
    """By the extremes and by least squared error, both with quantizers where a layer multiplies."""
    listed: list[Method] = []
    for bits in (8, 6, 4, 3):
        listed += [
            Amax(bits, bits, feed=calibration),
            Histogram(bits, bits, layers_only=True, unsigned_after_relu=True, feed=calibration),
        ]
    return listed
