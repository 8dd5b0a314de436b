"""The float network that a sweep starts from: somebody's checkpoint or, without one, ResNet-20 trained on digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from suite.recipe import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Calibration,
    Dataset,
    Network,
    Pretrained,
    Training,
)
from suite.recipe.errors import SuiteError, check_choice, no_checkpoint
from suite.record import files
from suite.sweeps import quick

NORMALIZATIONS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "cifar10": (CIFAR10_MEAN, CIFAR10_STD)}

Model = Annotated[
    str,
    Parameter(
        help="its architecture: resnet20, resnet32, resnet44, resnet56, resnet50, nin, torchvision/NAME, timm/NAME, "
        "or yours, my_net.py:build"
    ),
]
Shortcut = Annotated[
    str, Parameter(help="of a ResNet, how its blocks change shape: A (slice and pad) or B (1x1 convolution)")
]
Classes = Annotated[int, Parameter(help="outputs of its last layer")]
Normalization = Annotated[str, Parameter(help="mean and std it was trained with: imagenet or cifar10")]


@Parameter(name="*")
@dataclass(frozen=True)
class FloatNetwork:
    """The options of a sweep that starts from one float network."""

    weights: Annotated[
        Path | None, Parameter(help="a checkpoint of a CIFAR-10 network; without it, ResNet-20 on digits")
    ] = None
    model: Model = "resnet20"
    shortcut: Shortcut = "A"
    classes: Classes = 10
    normalization: Normalization = "imagenet"

    def start(self, seed: int) -> Training | Pretrained:
        """The checkpoint or, without one, the training with this seed."""
        if self.weights is None:
            return quick.training(seed)
        return pretrained(self.weights, self.model, self.shortcut, self.classes, self.normalization)

    def calibration(self, seed: int) -> Calibration:
        """The images of the recipes of this seed: those that start from a checkpoint differ by the draw of their
        calibration images, the others by their training."""
        return Calibration(seed=0 if self.weights is None else seed)


ON_DIGITS = FloatNetwork()


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
