"""ResNet-50 on CIFAR-10, the network of source 002: its float training, resized progressively for a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from suite.recipe import Dataset, Network, Precision, Sgd, Stage, Training

NETWORK = Network("resnet50", classes=1000)
"""A 3x3 stem for 32x32 images and source 002's head of 1,000 outputs, of which CIFAR-10 uses ten."""


def sweep(
    seed: Annotated[int, "of the training"] = 0,
    epochs_16: Annotated[int, "first epochs, at images of 16 pixels"] = 6,
    epochs_24: Annotated[int, "epochs after them, at 24 pixels"] = 3,
    epochs_32: Annotated[int, "last epochs, at 32 pixels"] = 4,
) -> Sequence[Stage]:
    """The float network."""
    epochs = epochs_16 + epochs_24 + epochs_32
    sgd = Sgd(
        epochs=epochs,
        batch=128,
        lr=0.1,
        weight_decay=5e-4,
        nesterov=True,
        warmup_epochs=min(1.0, epochs / 2),
        schedule="cosine",
        label_smoothing=0.1,
        precision=Precision("O2", "bfloat16"),
        image_sizes=(16,) * epochs_16 + (24,) * epochs_24,
    )
    return [Training(NETWORK, Dataset("cifar10"), sgd, seed)]
