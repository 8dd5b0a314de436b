"""Quantization-aware training at 4, 3 and 2 bits: LSQ and everything it has to beat, from one float network.

Weights and inputs at 4, 3 and 2 bits, and weights alone at 4 and 2; first and last layer have 8 bits. Without `epochs`
each method has a schedule of its paper, for a GPU; with it all have the same, so that a CPU can compare them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.dorefa import Dorefa
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import FINE_TUNING, LearnedMethod, Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.recipe import FLOAT_BITS, Calibration, Method, Pretrained, Recipe, Sgd, Training
from suite.steps import Distillation
from suite.sweeps import cifar10, quick
from suite.sweeps.cifar10 import Classes, Model, Normalization, Shortcut, Weights

WIDTHS = ((4, 4), (3, 3), (2, 2), (4, FLOAT_BITS), (2, FLOAT_BITS))

LLT = replace(FINE_TUNING, epochs=200)
"""200 epochs at 0.01 from a float network, batch 128, weight decay 1e-4: as LLT (CVPR 2022) ran LSQ on CIFAR-10."""
APOT = replace(FINE_TUNING, epochs=300, lr=0.04, schedule="steps", milestones=(150, 225))
"""APoT's `train_res20.sh`; its weight decay at 2 bits is 3e-5."""
HE = replace(FINE_TUNING, epochs=200, lr=0.1, schedule="steps", milestones=(100, 150))
"""He et al.'s schedule, on which PACT and DoReFa were reproduced."""

PARQ = replace(HE, weight_decay=2e-4, milestones=(80, 120, 150))
"""PARQ's `qat_resnet_cifar10.sh`, which trains from scratch."""


def sweep(
    weights: Weights = None,
    model: Model = "resnet20",
    shortcut: Shortcut = "A",
    classes: Classes = 10,
    normalization: Normalization = "imagenet",
    epochs: Annotated[int, "epochs of every training, at 0.01 with a cosine; 0: the papers' own"] = 0,
    seeds: Annotated[int, "trainings of each, from seed 0 on"] = 1,
) -> Sequence[Recipe]:
    """Each method at each width."""
    recipes = []
    for seed in range(seeds):
        start: Training | Pretrained = quick.training(seed)
        short = replace(quick.QAT, epochs=epochs or quick.QAT.epochs) if weights is None else None
        if weights is not None:
            start = cifar10.pretrained(weights, model, shortcut, classes, normalization)
            short = replace(FINE_TUNING, epochs=epochs) if epochs else None
        # Recipes from somebody's checkpoint differ by the draw of their calibration images.
        calibration = Calibration(seed=seed if weights is not None else 0)
        recipes += [Recipe(start, method) for method in methods(short, calibration)]
    return recipes


def methods(feed: Sgd | None, calibration: Calibration) -> list[Method]:
    """Every method at every width, trained by `feed` or, where it is None, by its paper's schedule."""
    found: list[Method] = []
    for weight_bits, act_bits in WIDTHS:
        widths = weight_bits, act_bits
        apot = replace(APOT, weight_decay=3e-5) if weight_bits == 2 else APOT
        for method, own in (
            (Lsq(*widths), LLT),
            (Lsq(*widths, distillation=Distillation()), LLT),
            (LsqPlus(*widths), LLT),
            (Pact(*widths), HE),
            (Dorefa(*widths), HE),
            (Ewgs(*widths), LLT),
            (Apot(*widths), apot),
        ):
            if isinstance(method, (LsqPlus, Pact)) and act_bits == FLOAT_BITS:
                continue  # they differ from LSQ and DoReFa in their inputs alone
            found.append(replace(method, feed=feed or own, calibration=calibration))
        if act_bits == FLOAT_BITS:
            hardened: tuple[LearnedMethod, ...] = (Parq(*widths), BinaryRelax(*widths))
            found += [replace(method, feed=feed or PARQ, calibration=calibration) for method in hardened]
    return found
