"""What does quantizing a ResNet-50 really cost? The sources' methods at 8, 6, 4 and 3 bits, on ImageNet.

On somebody's checkpoint of torchvision's ResNet-50 or, without one, on a ResNet-50 trained here. ImageNet lies in the
data folder as imagenet/train/CLASS/*.JPEG and imagenet/val/CLASS/*.JPEG.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from suite.recipe import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Calibration,
    Dataset,
    Network,
    Pretrained,
    Recipe,
    Sgd,
    Training,
)
from suite.sweeps.cifar10 import post_training
from suite.sweeps.float_network import checked_sha256


def sweep(
    weights: Annotated[
        Path | None, "a checkpoint of torchvision's resnet50; without it, one is trained"
    ] = None,
    sha256: Annotated[str, "the checksum it must have"] = "",
    epochs: Annotated[int, "epochs of the training"] = 90,
    batch: Annotated[int, "images of a step over all GPUs; the learning rate is 0.1 per 256"] = 1024,
    gpus: Annotated[int, "ranks that share the training"] = 4,
    size: Annotated[int, "pixels of an image's side"] = 224,
    classes: Annotated[int, "class folders"] = 1000,
    calibration_images: Annotated[int, "images that ranges are taken from"] = 1024,
) -> Sequence[Recipe]:
    """Every post-training method at every width."""
    network = Network("resnet50_imagenet", classes=classes)
    dataset = Dataset("imagenet", IMAGENET_MEAN, IMAGENET_STD, size=size)
    start: Training | Pretrained
    if weights is None:
        sgd = Sgd(
            epochs,
            batch,
            lr=0.1 * batch / 256,
            nesterov=True,
            warmup_epochs=min(5.0, epochs / 2),
            schedule="cosine",
            label_smoothing=0.1,
            crop="resized",
            world_size=gpus,
        )
        start = Training(network, dataset, sgd)
    else:
        start = Pretrained(network, dataset, str(weights.resolve()), checked_sha256(weights, sha256))
    calibration = Calibration(images=calibration_images, batch=min(128, calibration_images))
    return [Recipe(start, method) for method in post_training(calibration)]
