"""The sources' post-training methods at 8, 6, 4 and 3 bits, adaround and best, on your CIFAR-10 checkpoint."""

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
from suite.recipe import Calibration, Method, Recipe
from suite.sweeps.float_network import Classes, Model, Normalization, Shortcut, pretrained


def sweep(
    weights: Annotated[Path, "the checkpoint: a file of torch.save, or .safetensors"],
    model: Model = "resnet20",
    shortcut: Shortcut = "A",
    classes: Classes = 10,
    normalization: Normalization = "imagenet",
    sha256: Annotated[str, "the checksum it must have"] = "",
    calibration_seeds: Annotated[int, "random choices of 1,024 calibration images"] = 1,
) -> Sequence[Recipe]:
    """Each of these methods at each of its widths."""
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
