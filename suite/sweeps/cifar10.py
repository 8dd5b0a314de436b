"""All post-training methods at 8, 6, 4 and 3 bits on anybody's checkpoint of a CIFAR-10 network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from suite.methods.adaround import Adaround
from suite.methods.amax import Amax
from suite.methods.best import Best
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.entropy import Entropy
from suite.methods.histogram import Histogram
from suite.methods.int_cast import IntCast
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.methods.mse import Mse
from suite.methods.percentile import Percentile
from suite.recipe import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Calibration,
    Dataset,
    Method,
    Network,
    Pretrained,
    Recipe,
)
from suite.recipe.errors import SuiteError, check_choice, no_checkpoint
from suite.record import files

NORMALIZATIONS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "cifar10": (CIFAR10_MEAN, CIFAR10_STD)}


Weights = Annotated[Path | None, "a checkpoint of a CIFAR-10 network; without it, ResNet-20 on digits"]
Model = Annotated[str, "its architecture"]
Shortcut = Annotated[str, "its shortcut: A or B"]
Classes = Annotated[int, "outputs of its last layer"]
Normalization = Annotated[str, "mean and std it was trained with: imagenet or cifar10"]
"""The options of sweeps that start from one float network."""


def sweep(
    weights: Annotated[Path, "the checkpoint, a file of torch.save"],
    model: Annotated[
        str, "its architecture: resnet20, resnet32, resnet44, resnet56 or resnet50"
    ] = "resnet20",
    shortcut: Annotated[str, "how its blocks change shape: A (slice and pad) or B (1x1 convolution)"] = "A",
    classes: Annotated[int, "outputs of its last layer"] = 10,
    normalization: Annotated[str, "mean and std it was trained with: imagenet or cifar10"] = "imagenet",
    sha256: Annotated[str, "the checksum it must have"] = "",
    calibration_seeds: Annotated[int, "random choices of 1,024 calibration images"] = 1,
) -> Sequence[Recipe]:
    """Every post-training method at every width."""
    start = pretrained(weights, model, shortcut, classes, normalization, sha256)
    recipes = {
        recipe.key: recipe
        for seed in range(calibration_seeds)
        for method in post_training(Calibration(seed=seed)) + learned(Calibration(seed=seed))
        for recipe in [Recipe(start, method)]
    }
    return list(recipes.values())


def learned(calibration: Calibration) -> list[Method]:
    """Rounding that is learned, at 4 and 3 bits, every layer at that width as the others have it."""
    kinds: tuple[type[Adaround], ...] = (Adaround, Best)
    return [kind(bits, bits, None, feed=calibration) for kind in kinds for bits in (4, 3)]


def pretrained(
    weights: Path, model: str, shortcut: str, classes: int, normalization: str, sha256: str = ""
) -> Pretrained:
    """The stage of a checkpoint file. Raises SuiteError where it is missing or has not the checksum it must have."""
    found = checked_sha256(weights, sha256)
    check_choice("normalization", normalization, NORMALIZATIONS)
    return Pretrained(
        Network(model, shortcut, classes),  # type: ignore[arg-type]
        Dataset("cifar10", *NORMALIZATIONS[normalization]),
        str(weights.resolve()),
        found,
    )


def checked_sha256(weights: Path, expected: str) -> str:
    """The SHA-256 of a checkpoint file. Raises SuiteError where it is missing or does not begin with `expected`."""
    if not weights.is_file():
        raise no_checkpoint(weights, "name the file with --weights")
    found = files.sha256(weights)
    if expected and not found.startswith(expected.lower()):
        raise SuiteError(f"{weights} has sha256 {found}, not {expected}; it is another file or damaged")
    return found


def post_training(calibration: Calibration) -> list[Method]:
    """Each post-training method at 8, 6, 4 and 3 bits, as its source has it and done right."""
    methods: list[Method] = [BuiltinInt8(feed=calibration), Linear(16, rounding="none", input_cast=False)]
    methods += [Linear(16, input_cast=False, weights_evaluated=False, dtype="float16")]
    for bits in (8, 6, 4, 3):
        methods += [
            Linear(bits),
            Linear(bits, weights_evaluated=False),
            Linear(bits, weights_evaluated=False, batch_statistics=True),
            Linear(bits, map_back=True, input_cast=False),
            Linear(bits, map_back=True, input_cast=False, rounding="nearest", every_tensor=False),
            IntCast(bits),
            Histogram(bits, bits, feed=calibration),
            Histogram(bits, bits, search=False, bins_are_bits=True, train_mode=True, feed=calibration),
            Percentile(bits, bits, feed=calibration),
            Percentile(bits, bits, train_mode=True, feed=calibration),
            KSigma(bits),
            KSigma(bits + 1),
            KSigma(bits, per_layer=True),
            Amax(bits, bits),
            Amax(bits, bits, feed=calibration),
            Mse(bits, bits, feed=calibration),
            Entropy(bits, bits, feed=calibration),
        ]
    return methods
