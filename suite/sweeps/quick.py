"""14 methods on ResNet-20 and handwritten digits: no download, no GPU, minutes.

The digits ship with scikit-learn (8x8, enlarged to 32x32). It shows how the methods rank and how the suite works;
its accuracies are not those of the sources, which are of CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from suite.methods.adaround import Adaround
from suite.methods.best import Best
from suite.methods.entropy import Entropy
from suite.methods.lsq import Lsq
from suite.methods.mse import Mse
from suite.recipe import Calibration, Dataset, Method, Network, Precision, Recipe, Sgd, Training
from suite.sweeps.published import SOURCE_000, SOURCE_002, SOURCE_003, SOURCE_004, source_001

GREY = (0.3059, 0.3059, 0.3059), (0.3239, 0.3239, 0.3239)
"""Mean and standard deviation of the digits' training split, per channel."""


OBSERVED: tuple[Method, ...] = (Mse(8, 8), Mse(4, 4), Entropy(8, 8), Entropy(4, 4))
"""Beyond the sources: ranges by what one pass of each float network saw."""

QAT = Sgd(epochs=2, batch=64, lr=0.01, schedule="cosine", pad=2, flip=False, precision=Precision("O0"))
"""The quantization-aware training that follows."""

LEARNED: tuple[Method, ...] = (
    *(kind(4, 4, None, iterations=60, feed=Calibration(256)) for kind in (Adaround, Best)),
    Lsq(4, 4, feed=replace(QAT, epochs=1)),
)
"""What learns: the rounding, in few iterations on few images, which is enough for digits, or the step sizes."""


def sweep(
    seeds: Annotated[int, "trainings, from seed 0 on"] = 2,
    epochs: Annotated[int, "epochs of each training"] = 6,
) -> Sequence[Recipe]:
    """All methods on each training."""
    methods = SOURCE_000 + source_001(QAT) + SOURCE_002 + SOURCE_003 + SOURCE_004 + OBSERVED + LEARNED
    return [Recipe(training(seed, epochs), method) for seed in range(seeds) for method in methods]


def training(seed: int, epochs: int = 6) -> Training:
    """ResNet-20 on the digits, under O2 in bfloat16: about 98.8 % in half a minute on one core."""
    sgd = Sgd(
        epochs=epochs,
        batch=64,
        lr=0.1,
        weight_decay=5e-4,
        nesterov=True,
        warmup_epochs=0.5,
        schedule="cosine",
        pad=2,
        flip=False,
        precision=Precision("O2", "bfloat16"),
    )
    return Training(Network("resnet20"), Dataset("digits", *GREY), sgd, seed=seed)
