"""What to run: recipes as frozen values, known by their keys, and the plan of their stages. Imports no torch."""

from suite.recipe.method import Method
from suite.recipe.planning import over_ranks, plan
from suite.recipe.settings import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    FLOAT_BITS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Calibration,
    Damping,
    Dataset,
    Freezing,
    Network,
    Precision,
    Sgd,
)
from suite.recipe.stages import FORMAT, Pretrained, Recipe, Stage, Training

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "FLOAT_BITS",
    "FORMAT",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Calibration",
    "Damping",
    "Dataset",
    "Freezing",
    "Method",
    "Network",
    "Precision",
    "Pretrained",
    "Recipe",
    "Sgd",
    "Stage",
    "Training",
    "over_ranks",
    "plan",
]
