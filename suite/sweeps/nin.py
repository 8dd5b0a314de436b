"""Source 001 on the network its code trains, NIN on CIFAR-10: does a loss of two points appear anywhere?

Its text names no network; its code repository trains NIN to 91.01 % in float. From the float network and from scratch:
both schemes as published, one switch after the other until they are right, and a float training of the same length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from suite.methods.qat_asymmetric import QatAsymmetric
from suite.methods.qat_symmetric import QatSymmetric
from suite.methods.scheme import Scheme
from suite.recipe import FLOAT_BITS, Dataset, Method, Network, Recipe, Sgd, Training
from suite.steps import TrainOn
from suite.sweeps.explain import SCRATCH, chains


def sweep(
    epochs: Annotated[int, "of the float training and of each from scratch"] = 20,
    more_epochs: Annotated[int, "of each training on from the float network"] = 3,
    seeds: Annotated[int, "trainings of each, from seed 0 on"] = 1,
) -> Sequence[Recipe]:
    """All of each seed."""
    sgd = replace(SCRATCH, epochs=epochs, warmup_epochs=min(1.0, epochs / 2))
    more = Sgd(epochs=more_epochs, batch=128, lr=0.01, schedule="cosine", precision=SCRATCH.precision)
    return [
        Recipe(Training(Network("nin"), Dataset("cifar10"), sgd, seed), method)
        for seed in range(seeds)
        for method in methods(sgd, more)
    ]


def methods(sgd: Sgd, more: Sgd) -> list[Method]:
    """Trained on by `more`, and from scratch by `sgd`, of which the float network itself is the control."""
    control = Scheme(FLOAT_BITS, FLOAT_BITS, calibration=None, training=(TrainOn(more),))
    kinds = (QatSymmetric, QatAsymmetric)
    return [
        control,
        *(method for chain in chains("001", more) for method in chain),
        *(kind(8, 8, from_scratch=True, ranges_move=True, feed=sgd) for kind in kinds),
        *(kind(8, 8, from_scratch=True, running_extreme=True, feed=sgd) for kind in kinds),
    ]
