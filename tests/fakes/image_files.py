"""ImageNet of a few files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from suite.data import image_folder
from suite.data.image_folder import Streamed
from suite.data.workers import Requests
from suite.ranks import Ranks
from suite.recipe import IMAGENET_MEAN, IMAGENET_STD, Dataset, Precision, Sgd

COUNT = 22


def picture(number: int, mode: str = "RGB") -> Image.Image:
    """Smooth, unlike any other number's, 48 to 80 pixels a side."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    size = (48 + 4 * (number % 8), 80 - 4 * (number % 5))
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def write(folder: Path) -> Path:
    """ImageNet of 22 training images in 3 classes and 7 test images in 2, one a grey JPEG, one a PNG."""
    for split, count, classes in (("train", COUNT, "abc"), ("val", 7, "ac")):
        for number in range(count):
            place = folder / "imagenet" / split / f"n0{classes[number % len(classes)]}"
            place.mkdir(parents=True, exist_ok=True)
            mode, ending = ("L" if number == 1 else "RGB"), ("png" if number == 2 else "JPEG")
            picture(number + 100 * (split == "val"), mode).save(place / f"{number:03d}.{ending}", quality=95)
        (place / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


CPU = torch.device("cpu")


SMALL = Dataset("imagenet", IMAGENET_MEAN, IMAGENET_STD, size=32)


ONE = Ranks()


Batches = list[tuple[Tensor, Tensor]]


def find(folder: Path, split: str = "train", workers: int = 0) -> Streamed:
    return replace(image_folder.find(SMALL, split, folder, CPU), workers=workers, _requests=Requests())


def sgd(batch: int = 5, flip: bool = True) -> Sgd:
    return Sgd(epochs=1, batch=batch, lr=0.1, crop="resized", flip=flip, precision=Precision("O0"))


def epoch(images: Streamed, number: int = 0, first: int = 0, ranks: Ranks = ONE, batch: int = 5) -> Batches:
    return list(images.train_batches(sgd(batch), 3, number, ranks, first))
