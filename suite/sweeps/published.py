"""What the five sources did: ResNet-50 on CIFAR-10 under O2, their methods at their widths, from three seeds.

Source 000: torchvision's ResNet-50 unchanged (1000-way head) on images enlarged to 224, 4 GPUs of 256 images.
Source 002 (and 001 and 004, which name no training): ResNet-50 with a 3x3 stem on 32x32 images, 1000-way head.
Source 003: ResNet-20, batch 160, 180 epochs, one drop at 150.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from suite.methods.amax import Amax
from suite.methods.builtin_int8 import BuiltinInt8
from suite.methods.histogram import Histogram
from suite.methods.int_cast import IntCast
from suite.methods.k_sigma import KSigma
from suite.methods.linear import Linear
from suite.methods.percentile import Percentile
from suite.methods.qat_asymmetric import QatAsymmetric
from suite.methods.qat_symmetric import QatSymmetric
from suite.recipe import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Calibration,
    Dataset,
    Method,
    Network,
    Precision,
    Recipe,
    Sgd,
    Training,
)

SOURCE_000: tuple[Method, ...] = (
    *(Linear(bits) for bits in (16, 8, 4)),
    *(Linear(bits, weights_evaluated=False, batch_statistics=True) for bits in (16, 8, 4)),
    *(Linear(bits, map_back=True, input_cast=False) for bits in (16, 8, 4)),
    Linear(16, rounding="none", input_cast=False),
    Linear(16, input_cast=False, weights_evaluated=False, dtype="float16"),
    *(IntCast(bits) for bits in (16, 8)),
)
SOURCE_002: tuple[Method, ...] = (
    BuiltinInt8(),
    BuiltinInt8(feed=Calibration(images=128)),
    *(Histogram(bits, bits) for bits in (8, 4)),
    *(Histogram(bits, bits, search=False, bins_are_bits=True, train_mode=True) for bits in (8, 4)),
    *(Percentile(bits, bits) for bits in (8, 4, 3)),
    *(Percentile(bits, bits, train_mode=True) for bits in (8, 4, 3)),
)
SOURCE_003: tuple[Method, ...] = (KSigma(9), KSigma(5), KSigma(8), KSigma(4), KSigma(4, per_layer=True))
SOURCE_004: tuple[Method, ...] = (Amax(8, 8), Amax(4, 4))

SGD_000 = Sgd(50, 1024, 0.4, warmup_epochs=5, milestones=(30,), world_size=4, sync_batch_norm=False)
"""apex's ImageNet example, as source 000 ran it: 0.1 per 256 images, 4 GPUs, each with a BatchNorm of its own."""
SGD_003 = Sgd(180, 160, 0.022, weight_decay=9e-5, milestones=(150,))
"""Source 003's own; of its milestones 150 and 225 the second comes after the end."""
SGD_MODERN = Sgd(
    50, 512, 0.2, weight_decay=5e-4, nesterov=True, warmup_epochs=5, schedule="cosine", label_smoothing=0.1
)
"""What one would take today; for the sources that name no training."""


def source_001(feed: Sgd, ranges_move: bool = False) -> tuple[Method, ...]:
    """Both schemes at the source's 8 bits, trained on with `feed`; its own ranges move while evaluating."""
    return tuple(kind(8, 8, ranges_move=ranges_move, feed=feed) for kind in (QatSymmetric, QatAsymmetric))


def sweep(seeds: Annotated[int, "trainings of each network, from seed 0 on"] = 3) -> Sequence[Recipe]:
    """The sources' trainings and methods; for GPUs."""
    return [recipe for seed in range(seeds) for recipe in _of_seed(seed)]


def _of_seed(seed: int) -> list[Recipe]:
    imagenet_style = Training(
        Network("resnet50_imagenet", classes=1000),
        Dataset("cifar10", IMAGENET_MEAN, IMAGENET_STD, size=224),
        SGD_000,
        seed=seed,
    )
    for_32 = Training(Network("resnet50", classes=1000), Dataset("cifar10"), SGD_MODERN, seed=seed)
    mean_and_std_003 = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    small = Training(Network("resnet20"), Dataset("cifar10", *mean_and_std_003), SGD_003, seed=seed)
    qat = Sgd(epochs=10, batch=128, lr=0.01, schedule="cosine", precision=Precision("O0"))
    of_001 = source_001(qat, ranges_move=True) + source_001(qat)
    on = {imagenet_style: SOURCE_000, for_32: of_001 + SOURCE_002 + SOURCE_004, small: SOURCE_003}
    return [Recipe(start, method) for start, methods in on.items() for method in methods]
