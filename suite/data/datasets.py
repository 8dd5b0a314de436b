"""Loads a split of a data set by its name."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from suite.data.cifar import cifar10, shards
from suite.data.image_folder import Streamed, find
from suite.data.images import Images
from suite.recipe import Dataset
from suite.recipe.errors import SuiteError


@lru_cache(maxsize=4)
def load(dataset: Dataset, split: str, folder: Path, device: torch.device) -> Images | Streamed:
    """The "train" or "test" split: a small set whole and verified, ImageNet as its files. Raises SuiteError where it
    is missing or damaged."""
    if dataset.name == "imagenet":
        return find(dataset, split, folder, device)
    pixels, labels = digits(split) if dataset.name == "digits" else cifar10(split, folder)
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Images(channels_first.to(device), torch.from_numpy(labels).to(device), dataset)


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits (8x8, 16 greys), enlarged to 32x32 in three equal channels.

    Every third image is held out: 1,198 to train, 599 to test.
    """
    rows = np.loadtxt(_digits_file(), delimiter=",")  # 64 pixels and the label
    held_out = np.arange(len(rows)) % 3 == 0
    chosen = rows[held_out if split == "test" else ~held_out]
    images = chosen[:, :-1].reshape(-1, 8, 8)
    small = torch.from_numpy(images).float().unsqueeze(1) * (255 / 16)
    large = F.interpolate(small, size=32, mode="bilinear", align_corners=False).round().to(torch.uint8)
    pixels = large.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous().numpy()
    return pixels, chosen[:, -1].astype(np.int64)


def _digits_file() -> Path:
    """The file that scikit-learn brings; to import it for that takes a process longer than to import torch."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise SuiteError("scikit-learn, which brings the digits, is not installed; install requirements.txt")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


def download(dataset: Dataset, folder: Path) -> None:
    """Fetch a data set that is not in `folder` yet, by torchvision, which checks its MD5."""
    if dataset.name == "cifar10" and not shards("test", folder):
        from suite.networks.torchvision_import import torchvision

        try:
            torchvision.datasets.CIFAR10(str(folder), train=True, download=True)
        except Exception as error:
            raise SuiteError(
                f"CIFAR-10 cannot be downloaded into {folder}: {error}; fetch it elsewhere and name its folder "
                f"with --data"
            ) from None
