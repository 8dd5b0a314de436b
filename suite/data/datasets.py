"""Loads a split of a data set by its name."""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from suite.data import arrays
from suite.data.cifar import CLASSES, cifar, has_files
from suite.data.image_folder import Streamed, find
from suite.data.images import Images
from suite.recipe import Dataset, user_files
from suite.recipe.errors import SuiteError
from suite.record.waiting import announced

SILENCE_SECONDS = 60.0
"""How long a server from which a data set is downloaded may send nothing."""

Loaded = Images | Streamed


@lru_cache(maxsize=4)
def load(dataset: Dataset, split: str, folder: Path, device: torch.device) -> Loaded:
    """The "train" or "test" split: a small set whole and verified, ImageNet and other folders as their files. Raises
    SuiteError where it is missing or damaged."""
    if not dataset.is_complete:
        dataset, _ = of_training_images(dataset, folder)
    if in_files(dataset, folder):
        return find(dataset, split, folder, device)
    pixels, labels = _in_memory(dataset, split, folder)
    names = CLASSES.get(dataset.name, ())
    return Images(pixels.to(device), labels.to(device), dataset, names)


def in_files(dataset: Dataset, folder: Path) -> bool:
    """Whether the data set is read from image files. Raises SuiteError where there is nothing of its name."""
    if dataset.name == "imagenet":
        return True
    if (
        dataset.name in Dataset.IMAGES
        or user_files.is_reference(dataset.name)
        or _npz(dataset, folder).is_file()
    ):
        return False
    if (folder / dataset.name).is_dir():
        return True
    if packed := [file for file in sorted(folder.glob(f"{dataset.name}*")) if file.is_file()]:
        raise SuiteError(
            f"no data set {dataset.name!r} in {folder}, but the file {packed[0].name}; unpack an archive, to "
            f"{dataset.name}/train/CLASS/* and {dataset.name}/test/CLASS/*, and save arrays in {dataset.name}.npz, "
            f"with x_train, y_train, x_test and y_test"
        )
    there = [file.stem for file in sorted(folder.glob("*.npz"))]
    there += [place.parent.name for place in sorted(folder.glob("*/train")) if place.is_dir()]
    raise SuiteError(
        f"no data set {dataset.name!r} in {folder}: neither {dataset.name}.npz with x_train, y_train, x_test and "
        f"y_test nor {dataset.name}/train/CLASS/* and {dataset.name}/test/CLASS/*; there is "
        f"{', '.join(there) or 'none'}; name another folder with --data"
    )


def _npz(dataset: Dataset, folder: Path) -> Path:
    return folder / f"{dataset.name}.npz"


def _in_memory(dataset: Dataset, split: str, folder: Path) -> tuple[Tensor, Tensor]:
    """(uint8 [N, channels, H, W], int64 [N]) of what is no folder of image files."""
    if dataset.name == "digits":
        pixels, labels = digits(split)
    elif dataset.name in CLASSES:
        pixels, labels = cifar(dataset.name, split, folder)
    elif user_files.is_reference(dataset.name):
        pixels, labels = arrays.of_loader(dataset, split, folder)
    else:
        pixels, labels = arrays.of_npz(_npz(dataset, folder), split)
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    own = channels_first.shape[1]
    if own == 3 and dataset.channels == 1:
        raise SuiteError(f"the images of {dataset.name} have 3 channels; leave Dataset's channels=1 out")
    if own != dataset.channels and (own, dataset.channels) != (1, 3):
        raise SuiteError(
            f"the images of {dataset.name} have {own} channels, not {dataset.channels}; give Dataset(..., "
            f"channels={own}), and a network that takes as many"
        )
    whole = channels_first.expand(-1, dataset.channels, -1, -1).contiguous()
    return whole, torch.from_numpy(labels)


def of_training_images(dataset: Dataset, folder: Path) -> tuple[Dataset, int]:
    """The data set with what it does not give of side, mean and standard deviation (to four decimals) as its training
    images have them, and the number of classes. Raises SuiteError where a class has no training image."""
    if in_files(dataset, folder):
        train = find(dataset, "train", folder, torch.device("cpu"))
        size, labels = dataset.size or train.side(), train.labels
        pixels = torch.empty(0) if dataset.mean else train.sample(size)
    else:
        pixels, labels = _in_memory(dataset, "train", folder)
        size = dataset.size or pixels.shape[-1]
    mean, std = (dataset.mean, dataset.std) if dataset.mean else _mean_and_std(pixels)
    return replace(dataset, mean=mean, std=std, size=size), _classes(dataset, labels)


def _classes(dataset: Dataset, labels: Tensor) -> int:
    counts = labels.bincount()
    if not counts.all():
        raise SuiteError(
            f"no training image of {dataset.name} has the label {int((counts == 0).nonzero()[0])}, and there are "
            f"labels up to {len(counts) - 1}; number the classes from 0 on"
        )
    return len(counts)


def _mean_and_std(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of uint8 [N, C, H, W], per channel, scaled to 0..1. A channel without any spread has the std 1."""
    counts = [
        pixels[:, channel].flatten().bincount(minlength=256).double() for channel in range(pixels.shape[1])
    ]
    values = torch.arange(256).double() / 255
    means = [float((count * values).sum() / count.sum()) for count in counts]
    spreads = [
        float(((count * (values - mean) ** 2).sum() / count.sum()).sqrt())
        for count, mean in zip(counts, means, strict=True)
    ]
    rounded = [round(spread, 4) or 1.0 for spread in spreads]
    return tuple(round(mean, 4) for mean in means), tuple(rounded)


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
    """Fetch a data set that is not in `folder` yet, by torchvision, which checks its MD5. Raises SuiteError where that
    fails."""
    if dataset.name not in CLASSES or has_files(dataset.name, folder):
        return
    from suite.networks.torchvision_import import torchvision

    kind = torchvision.datasets.CIFAR10 if dataset.name == "cifar10" else torchvision.datasets.CIFAR100
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        with announced(f"{kind.__name__} is downloaded into {folder}"):
            kind(str(folder), train=True, download=True)
    except Exception as error:
        raise SuiteError(
            f"{kind.__name__} cannot be downloaded into {folder}: {error}; fetch it elsewhere and name its folder "
            f"with --data"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
