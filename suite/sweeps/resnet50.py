"""ResNet-50 on CIFAR-10, the network of source 002: what quantizing it costs, by the sources' methods.

It starts from the checkpoint of the repository, which `--train` makes again. The recipes are those that answer a
question: the sources' numbers as published, from three draws of calibration images where the source calibrates; each
sound method at 8, 6, 4 and 3 bits, and `best` at 4 and 3; treatments of BatchNorm and of the first and last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from suite.methods.amax import Amax
from suite.methods.best import Best
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.entropy import Entropy
from suite.methods.histogram import Histogram
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.methods.mse import Mse
from suite.methods.percentile import Percentile
from suite.methods.scheme import Scheme
from suite.recipe import (
    FLOAT_BITS,
    Calibration,
    Dataset,
    Method,
    Network,
    Precision,
    Pretrained,
    Recipe,
    Sgd,
    Stage,
    Training,
)
from suite.recipe.errors import SuiteError
from suite.steps import TrainOn
from suite.sweeps.float_network import checked_sha256

DATASET = Dataset("cifar10")
NETWORK = Network("resnet50", classes=1000)
"""A 3x3 stem for 32x32 images and source 002's head of 1,000 outputs, of which CIFAR-10 uses ten."""

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "resnet50-cifar10.safetensors"
"""What `training` gave; the file beside it says how, when and on what."""


def sweep(
    weights: Annotated[
        Path | None, "a checkpoint of the network; without it, checkpoints/resnet50-cifar10.safetensors"
    ] = None,
    train: Annotated[bool, "only make that checkpoint again: its trainings, hours of a CPU"] = False,
    seed: Annotated[int, "of the training"] = 0,
    draws: Annotated[int, "random choices of calibration images for source 002's methods"] = 3,
) -> Sequence[Stage]:
    """Source 002's methods first, then the others."""
    if train and weights is not None:
        raise SuiteError("a checkpoint is not trained; give either --weights or --train")
    if train:
        return [training(seed)]
    file = CHECKPOINT if weights is None else weights
    start = Pretrained(NETWORK, DATASET, str(file.resolve()), checked_sha256(file, ""))
    recipes = [Recipe(start, method) for draw in range(draws) for method in of_002(Calibration(seed=draw))]
    recipes += [Recipe(start, method) for method in of_other_sources() + sound(Calibration())]
    recipes += [Recipe(start, method, **treatment) for method, treatment in treated(Calibration())]
    return recipes


SGD = Sgd(
    epochs=13,
    batch=128,
    lr=0.1,
    weight_decay=5e-4,
    nesterov=True,
    warmup_epochs=1.0,
    schedule="cosine",
    label_smoothing=0.1,
    pad=2,
    precision=Precision("O2", "bfloat16"),
    image_sizes=(20,) * 4 + (24,) * 6,
    evaluate_every=5,
)
"""Most epochs see images that cost about half as much as whole ones. These move by 2 pixels and not by 4, as in other
trainings of about ten epochs (Jordan, airbench94, 2024)."""


FURTHER = (
    replace(SGD, epochs=7, lr=0.05, warmup_epochs=0.5, pad=4, image_sizes=(), evaluate_every=4),
    replace(SGD, epochs=5, lr=0.04, warmup_epochs=0.25, pad=4, image_sizes=(28, 28)),
)
"""Each goes on from the weights of the one before it."""


def training(seed: int) -> Recipe:
    """The float network of the checkpoint: four hours of two cores with bfloat16 units. It rounds nothing."""
    first = Training(NETWORK, DATASET, SGD, seed)
    last: Recipe | None = None
    for sgd in FURTHER:
        method = Scheme(FLOAT_BITS, FLOAT_BITS, calibration=None, training=(TrainOn(sgd),))
        last = Recipe(first, method, continues=last)
    assert last is not None
    return last


def of_002(draw: Calibration) -> list[Method]:
    """Source 002's methods at the widths that it states, as published and as its labels say."""
    return [
        BuiltinInt8(feed=Calibration(images=128, seed=draw.seed)),
        *(
            Histogram(bits, bits, search=False, bins_are_bits=True, train_mode=True, feed=draw)
            for bits in (8, 4)
        ),
        *(Percentile(bits, bits, train_mode=True, feed=draw) for bits in (8, 4, 3)),
        *(Histogram(bits, bits, feed=draw) for bits in (8, 4)),
        *(Percentile(bits, bits, feed=draw) for bits in (8, 4, 3)),
    ]


def of_other_sources() -> list[Method]:
    """Sources 000 and 003 as published and as their labels say; 004 is sound."""
    return [
        Linear(8, weights_evaluated=False, batch_statistics=True),
        *(Linear(bits) for bits in (16, 8, 4)),
        Linear(16, input_cast=False, weights_evaluated=False, dtype="float16"),
        *(KSigma(bits) for bits in (9, 5, 8, 4)),
    ]


def sound(draw: Calibration) -> list[Method]:
    """Each sound method at 8, 6, 4 and 3 bits, but for what `of_002` has; `best`, which learns, at 4 and 3, with the
    first and the last layer of 8 bits and as the rest."""
    methods: list[Method] = [BuiltinInt8(feed=draw)]
    for bits in (8, 6, 4, 3):
        methods += [
            Amax(bits, bits),
            Amax(bits, bits, feed=draw),
            Mse(bits, bits, feed=draw),
            Entropy(bits, bits, feed=draw),
            Linear(bits, map_back=True, input_cast=False, rounding="nearest", every_tensor=False),
            KSigma(bits, per_layer=True),
        ]
    methods += [Histogram(6, 6, feed=draw), Histogram(3, 3, feed=draw), Percentile(6, 6, feed=draw)]
    return [*methods, *(Best(bits, bits, ends, feed=draw) for ends in (8, None) for bits in (4, 3))]


def treated(draw: Calibration) -> list[tuple[Method, dict[str, Any]]]:
    """The best of them at 4 and 3 bits, with BatchNorm and the first and last layer treated otherwise."""
    treatments: tuple[dict[str, Any], ...] = (
        {"batch_norm": "re-estimated"},
        {"edge_bits": 8},
        {"edge_bits": FLOAT_BITS},
        {"batch_norm": "re-estimated", "edge_bits": 8},
    )
    return [(Mse(bits, bits, feed=draw), treatment) for bits in (4, 3) for treatment in treatments]
