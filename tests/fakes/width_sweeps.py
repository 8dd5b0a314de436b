"""A sweep of widths by layer: uniform, chosen and random ones, with their records."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from fakes.answers import answered, right
from fakes.layer_records import NAMES, keep
from fakes.runs_folder import Json, plan, stage

TOPS = {"uniform": 80.0, "gradient": 84.5, "hessian": 79.0, "random": 76.0}
"""Top-1 less the bits; each draw has one point more than that before."""


def record(bits: float, by: str) -> Json:
    """The first layer is declared at 8 bits, the others have `bits` or what lies on either side."""
    scores = (
        {str(width): 2.0**-width for width in (2, 3, 4, 5, 6, 8)} if by in ("gradient", "hessian") else {}
    )
    layers = []
    for place, name in enumerate(NAMES):
        width = 8 if place == 0 else math.ceil(bits) if place % 2 else math.floor(bits)
        own = {} if place == 0 else scores
        layer: Json = {"name": name, "weight_bits": width, "input_bits": width, "weights": 10, "macs": 100}
        layer |= {"declared": place == 0, "scores": {"weight": own, "input": {}}}
        if by == "hessian" and place:
            zero = place == 2
            layer["hessian"] = {"weight": {"trace": -1.0 if zero else 2.0, "standard_error": 1.0}}
            layer["scores"]["weight"] = dict.fromkeys(scores, 0.0) if zero else scores
        layers.append(layer)
    means = {"mean_weight_bits": bits, "mean_weight_bits_by_layer": bits}
    return {"format": 1, "by": by, **means, "bops": bits**2 * 1e6, "size_mb": bits / 9, "layers": layers}


def ran(
    runs: Path, start: Json, bits: float, by: str, seed: int = 0, draw: int = 0, **params: object
) -> Json:
    """One of these runs, finished. Its plan has the method's widths, which are whole, as that of the sweep `mixed`."""
    budget = {
        "of": "mse",
        "by": by,
        "size_bits": float(bits),
        "bops_per_mac": float(bits) ** 2,
        "draw_seed": draw,
    }
    what = stage("mixed", math.ceil(bits), seed, start, **budget | params)
    top1 = TOPS[by] + bits + draw
    answered(runs, what, right(round(10 * top1)), model_size_mb=bits / 9)
    keep(runs, what, "widths.json", record(bits, by))
    return what


def sweep(runs: Path, seeds: int = 1, scores: tuple[str, ...] = ("gradient",)) -> list[Json]:
    """Uniform at 8, 4 and 3 bits; at 4, 3 and 2.5 bits a choice by each score, and ten random ones, of which that by
    the gradient beats nine."""
    stages = []
    for seed in range(seeds):
        start = stage("float", 32, seed)
        answered(runs, start, right(920))
        stages += [start, *(ran(runs, start, bits, "uniform", seed) for bits in (8, 4, 3))]
        for bits, by in itertools.product((4, 3, 2.5), scores):
            stages.append(ran(runs, start, bits, by, seed))
        for bits, draw in itertools.product((4, 3, 2.5), range(10)):
            stages.append(ran(runs, start, bits, "random", seed, draw))
    plan(runs, *stages)
    return stages
