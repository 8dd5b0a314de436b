"""ImageNet of a few files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
