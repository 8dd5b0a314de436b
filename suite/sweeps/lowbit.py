"""Quantization-aware training at 4, 3 and 2 bits: LSQ and everything it has to beat, from one float network.

Weights and inputs at 4, 3 and 2 bits, and weights alone at 4 and 2; first and last layer have 8 bits. Without `epochs`
each method has a schedule of its paper, for a GPU; with it all have the same, so that a CPU can compare them, at 0.01
or `lr`. An `lr` is chosen by the loss on the training images, which a run records each epoch, not by the test images.

`progressive` adds LSQ and APoT from 4 bits to 3 and to 2, each from the weights of the one before; `teacher` adds LSQ
that learns from another checkpoint, such as one of a better training. A CPU with a unit for bfloat16 trains faster
with `bfloat16`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.dorefa import Dorefa
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import FINE_TUNING, LearnedMethod, Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.recipe import FLOAT_BITS, Calibration, Method, Precision, Pretrained, Recipe, Sgd, Training
from suite.recipe.errors import SuiteError
from suite.steps import Distillation
from suite.sweeps import quick
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork, Model, Normalization, Shortcut, pretrained

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
    float_network: FloatNetwork = ON_DIGITS,
    epochs: Annotated[int, "epochs of every training, with a cosine; 0: the papers' own"] = 0,
    seeds: Annotated[int, "trainings of each, from seed 0 on"] = 1,
    bfloat16: Annotated[bool, "every training under O2 in bfloat16 instead of O0"] = False,
    progressive: Annotated[bool, "also LSQ and APoT from 4 bits to 3 and to 2"] = False,
    teacher: Annotated[Path | None, "a checkpoint that teaches one more LSQ at each width"] = None,
    teacher_model: Model = "resnet20",
    teacher_shortcut: Shortcut = "B",
    teacher_normalization: Normalization = "cifar10",
    lr: Annotated[float, "learning rate of trainings of equal length, with --epochs; 0: 0.01"] = 0.0,
) -> Sequence[Recipe]:
    """Each method at each width."""
    taught = None
    if teacher is not None:
        named = teacher_model, teacher_shortcut, float_network.classes, teacher_normalization
        taught = Distillation(teacher=pretrained(teacher, *named))
    on_digits = float_network.weights is None
    if lr and not (epochs or on_digits):
        raise SuiteError(
            f"lr {lr} is of trainings of equal length; give --epochs too, or leave the papers' rates"
        )
    usual = quick.QAT if on_digits else FINE_TUNING
    equal = replace(usual, epochs=epochs or usual.epochs, lr=lr or usual.lr)
    feed = equal if epochs or on_digits else None
    recipes: list[Recipe] = []
    for seed in range(seeds):
        start, calibration = float_network.start(seed), float_network.calibration(seed)
        recipes += [Recipe(start, method) for method in methods(feed, calibration, taught)]
        recipes += chains(start, feed, calibration) if progressive else []
    return [_in_bfloat16(recipe) for recipe in recipes] if bfloat16 else recipes


def chains(start: Training | Pretrained, feed: Sgd | None, calibration: Calibration) -> list[Recipe]:
    """LSQ and APoT at 4, 3 and 2 bits, each from the weights of the one before."""
    found: list[Recipe] = []
    for kind, own in ((Lsq, LLT), (Apot, APOT)):
        before = None
        for bits in (4, 3, 2):
            paper = replace(own, weight_decay=3e-5) if kind is Apot and bits == 2 else own
            method = kind(bits, bits, feed=feed or paper, calibration=calibration)
            before = Recipe(start, method, continues=before)
            found.append(before)
    return found


def _in_bfloat16(recipe: Recipe) -> Recipe:
    """The recipe, and what it continues, trained under O2 in bfloat16."""
    method, before = recipe.method, recipe.continues
    assert isinstance(method, LearnedMethod)
    feed = replace(method.feed, precision=Precision("O2", "bfloat16"))
    return replace(recipe, method=replace(method, feed=feed), continues=before and _in_bfloat16(before))


def methods(feed: Sgd | None, calibration: Calibration, taught: Distillation | None = None) -> list[Method]:
    """Every method at every width, trained by `feed` or, where it is None, by its paper's schedule."""
    found: list[Method] = []
    for weight_bits, act_bits in WIDTHS:
        widths = weight_bits, act_bits
        apot = replace(APOT, weight_decay=3e-5) if weight_bits == 2 else APOT
        for method, own in (
            (Lsq(*widths), LLT),
            (Lsq(*widths, distillation=Distillation()), LLT),
            *([(Lsq(*widths, distillation=taught), LLT)] if taught else []),
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
