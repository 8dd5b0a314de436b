"""Source 000 on its own network for a CPU: torchvision's ResNet-50 unchanged, CIFAR-10 enlarged to 64 pixels.

The source enlarges to 224, twelve times the work. Float weights, BatchNorm of each batch and the input cast to
integers give 62 to 64 % there: do they here?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from suite.recipe import IMAGENET_MEAN, IMAGENET_STD, Dataset, Network, Precision, Recipe, Sgd, Training
from suite.sweeps.published import SOURCE_000


def sweep(
    size: Annotated[int, "pixels of a side to which the images are enlarged"] = 64,
    epochs: Annotated[int, "of the float training; the source has 50"] = 12,
    seeds: Annotated[int, "trainings, from seed 0 on"] = 1,
) -> Sequence[Recipe]:
    """The source's methods on each training."""
    sgd = Sgd(
        epochs,
        batch=128,
        lr=0.05,
        warmup_epochs=min(1.0, epochs / 2),
        milestones=(max(1, epochs * 3 // 5),),
        precision=Precision("O2", "bfloat16"),
    )
    data = Dataset("cifar10", IMAGENET_MEAN, IMAGENET_STD, size=size)
    network = Network("resnet50_imagenet", classes=1000)
    return [
        Recipe(Training(network, data, sgd, seed), method) for seed in range(seeds) for method in SOURCE_000
    ]
