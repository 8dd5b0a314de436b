"""Quantization-aware training at 4, 3 and 2 bits: LSQ and everything it has to beat, from one float network.

Weights and inputs at 4, 3 and 2 bits, and weights alone at 4 and 2. First and last layer have 8 bits, of APoT their
inputs are float; `first_last` gives all methods one convention: `rest`, the width of the rest, is that of PARQ's
paper. At 3 bits LSQ also runs with damped weights, with frozen weights, and with BatchNorm estimated again after
training.

Without `epochs` each method has a schedule for a GPU, from where it was published for CIFAR-10; with it all have the
same, so that a CPU can compare them, at 0.01 or `lr`. An `lr` is chosen by the loss on the training images, which a
run records each epoch, not by the test images. Whose the schedules are, and where they are not the authors':
- LSQ: LLT's, who ran it again on CIFAR-10, with the weight decays of LSQ's authors, less for fewer bits;
- LSQ+, whose authors have none for CIFAR-10: LLT's. Distillation: LLT's too, 200 epochs instead of SQAKD's 1,200;
- PACT and DoReFa: He et al.'s, on which others reproduced them; APoT: its authors';
- EWGS: its authors' epochs and batch, by SGD at LLT's rate instead of their Adam at 1e-3, and 1e-5 for the ranges;
- PARQ and BinaryRelax: PARQ's authors', from scratch as there.

`progressive` adds LSQ and APoT from 4 bits to 3 and to 2, each from the weights of the one before; `teacher` adds LSQ
that learns from another checkpoint, such as one of a better training. A CPU with a unit for bfloat16 trains faster
with `bfloat16`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from suite.methods.apot import Apot
from suite.methods.binary_relax import BinaryRelax
from suite.methods.dorefa import Dorefa
from suite.methods.ewgs import Ewgs
from suite.methods.lsq import FINE_TUNING, LearnedMethod, Lsq
from suite.methods.lsq_plus import LsqPlus
from suite.methods.pact import Pact
from suite.methods.parq import Parq
from suite.recipe import (
    FLOAT_BITS,
    Calibration,
    Damping,
    Freezing,
    Method,
    Precision,
    Pretrained,
    Recipe,
    Sgd,
    Training,
)
from suite.recipe.errors import SuiteError, check_choice
from suite.steps import Distillation
from suite.sweeps import quick
from suite.sweeps.float_network import ON_DIGITS, FloatNetwork, Model, Normalization, Shortcut, pretrained

WIDTHS = ((4, 4), (3, 3), (2, 2), (4, FLOAT_BITS), (2, FLOAT_BITS))

LLT = replace(FINE_TUNING, epochs=200)
"""200 epochs at 0.01 from a float network, batch 128, weight decay 1e-4: as LLT (CVPR 2022) ran LSQ on CIFAR-10."""
LSQ_DECAY = {4: 1e-4, 3: 0.5e-4, 2: 0.25e-4}
"""Weight decay by bits of LSQ's paper (arXiv 1902.08153), whose networks are for ImageNet."""
EWGS = replace(LLT, epochs=400, batch=256)
"""EWGS's 400 epochs, batch of 256, cosine to 0 and weight decay of 1e-4."""
APOT = replace(FINE_TUNING, epochs=300, lr=0.04, schedule="steps", milestones=(150, 225))
"""APoT's `train_res20.sh`; its weight decay at 2 bits is 3e-5."""
HE = replace(FINE_TUNING, epochs=200, lr=0.1, schedule="steps", milestones=(100, 150))
"""He et al.'s schedule, on which PACT and DoReFa were reproduced."""

PARQ = replace(HE, weight_decay=2e-4, milestones=(80, 120, 150))
"""PARQ's `qat_resnet_cifar10.sh`, which trains from scratch."""

FirstLast = Literal["own", "8", "32", "apot", "rest"]
OSCILLATING = 3
"""Bits at which LSQ runs with damped and with frozen weights, for which the authors have a threshold."""
THRESHOLD = 0.011
"""Theirs at 3 bits."""


def sweep(
    float_network: FloatNetwork = ON_DIGITS,
    epochs: Annotated[int, "epochs of every training, with a cosine; 0: their own"] = 0,
    seeds: Annotated[int, "trainings of each, from seed 0 on"] = 1,
    bfloat16: Annotated[bool, "every training under O2 in bfloat16 instead of O0"] = False,
    progressive: Annotated[bool, "also LSQ and APoT from 4 bits to 3 and to 2"] = False,
    teacher: Annotated[Path | None, "a checkpoint that teaches one more LSQ at each width"] = None,
    teacher_model: Model = "resnet20",
    teacher_shortcut: Shortcut = "B",
    teacher_normalization: Normalization = "cifar10",
    lr: Annotated[float, "learning rate of trainings of equal length, with --epochs; 0: 0.01"] = 0.0,
    first_last: Annotated[
        FirstLast,
        "first and last layer of every method: 8 bits, 32 for float, apot: weights 8 bits and inputs float, rest: as "
        "the rest; own: 8 bits, of APoT as apot",
    ] = "own",
) -> Sequence[Recipe]:
    """Each method at each width."""
    check_choice("first_last", first_last, get_args(FirstLast))
    taught = None
    if teacher is not None:
        named = teacher_model, teacher_shortcut, float_network.classes, teacher_normalization
        taught = Distillation(teacher=pretrained(teacher, *named))
    on_digits = float_network.weights is None
    if lr and not (epochs or on_digits):
        raise SuiteError(
            f"lr {lr} is of trainings of equal length; give --epochs too, or leave the methods' own rates"
        )
    usual = quick.QAT if on_digits else FINE_TUNING
    equal = replace(usual, epochs=epochs or usual.epochs, lr=lr or usual.lr)
    feed = equal if epochs or on_digits else None
    recipes: list[Recipe] = []
    for seed in range(seeds):
        start, calibration = float_network.start(seed), float_network.calibration(seed)
        recipes += [Recipe(start, method) for method in methods(feed, calibration, taught)]
        recipes += oscillating(start, feed, calibration)
        recipes += chains(start, feed, calibration) if progressive else []
    recipes = [_with_first_last(recipe, first_last) for recipe in recipes]
    return [_in_bfloat16(recipe) for recipe in recipes] if bfloat16 else recipes


def oscillating(start: Training | Pretrained, feed: Sgd | None, calibration: Calibration) -> list[Recipe]:
    """LSQ whose weights are damped, or frozen, or whose BatchNorm is estimated again: what helps where weights
    oscillate (arXiv 2203.11086)."""
    bits = OSCILLATING
    plain = Lsq(bits, bits, feed=feed or _of_lsq(bits), calibration=calibration)
    return [
        Recipe(start, replace(plain, damping=Damping())),
        Recipe(start, replace(plain, freezing=Freezing(threshold=THRESHOLD))),
        Recipe(start, plain, batch_norm="re-estimated"),
    ]


def _of_lsq(weight_bits: int) -> Sgd:
    return replace(LLT, weight_decay=LSQ_DECAY[weight_bits])


def _of_apot(weight_bits: int) -> Sgd:
    return replace(APOT, weight_decay=3e-5) if weight_bits == 2 else APOT


def _with_first_last(recipe: Recipe, how: FirstLast) -> Recipe:
    """The recipe, and what it continues, with its first and last layer as the option says."""
    if how == "own":
        return recipe
    method, before = recipe.method, recipe.continues
    assert isinstance(method, LearnedMethod)
    if how == "rest":
        weights, inputs = method.weight_bits, method.act_bits
    else:
        weights, inputs = (8, FLOAT_BITS) if how == "apot" else (int(how), int(how))
    usual = None if inputs == weights and not isinstance(method, Apot) else inputs
    method = replace(method, first_last=weights, first_last_inputs=usual)
    return replace(recipe, method=method, continues=before and _with_first_last(before, how))


def chains(start: Training | Pretrained, feed: Sgd | None, calibration: Calibration) -> list[Recipe]:
    """LSQ and APoT at 4, 3 and 2 bits, each from the weights of the one before."""
    found: list[Recipe] = []
    for kind, own in ((Lsq, _of_lsq), (Apot, _of_apot)):
        before = None
        for bits in (4, 3, 2):
            method = kind(bits, bits, feed=feed or own(bits), calibration=calibration)
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
    """Every method at every width, trained by `feed` or, where it is None, by its own schedule."""
    found: list[Method] = []
    for weight_bits, act_bits in WIDTHS:
        widths = weight_bits, act_bits
        for method, own in (
            (Lsq(*widths), _of_lsq(weight_bits)),
            (Lsq(*widths, distillation=Distillation()), LLT),
            *([(Lsq(*widths, distillation=taught), LLT)] if taught else []),
            (LsqPlus(*widths), LLT),
            (Pact(*widths), HE),
            (Dorefa(*widths), HE),
            (Ewgs(*widths), EWGS),
            (Apot(*widths), _of_apot(weight_bits)),
        ):
            if isinstance(method, (LsqPlus, Pact)) and act_bits == FLOAT_BITS:
                continue  # they differ from LSQ and DoReFa in their inputs alone
            found.append(replace(method, feed=feed or own, calibration=calibration))
        if act_bits == FLOAT_BITS:
            anew = feed is None
            hardened: tuple[LearnedMethod, ...] = (
                Parq(*widths, from_scratch=anew),
                BinaryRelax(*widths, from_scratch=anew),
            )
            found += [replace(method, feed=feed or PARQ, calibration=calibration) for method in hardened]
    return found
