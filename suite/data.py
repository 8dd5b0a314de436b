"""Small data sets, held whole on the device as uint8 and augmented there: batches, each rank its share.

CIFAR-10 comes in one canonical order, by the SHA-256 of the pixels: every copy, however its files are sorted, gives
the same batches for the same seed, and the classes are mixed. (In an order by class, a model that normalizes by the
statistics of its batch falls from 60 % to 15 %.)
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from suite import imagenet
from suite.imagenet import Streamed, drawn
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Sgd
from suite.values import SuiteError

CIFAR10_SHA256 = {
    "train": "32b25bb65187cdb40e66b2bd4dbb2de04f62e2d521f74c46a56f39f2afb56e96",
    "test": "27f7d008727f5b9a8f5b01f61503d2f52d3ba7f5ffb2c331b5b82775de2e2d72",
}
"""Of the pixels in canonical order: uint8, [N, 32, 32, 3] in RGB, row by row."""


CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
}
"""Their names by label, where they have other names than their labels."""


@dataclass(frozen=True)
class Images:
    """One split: `pixels` uint8 [N, 3, H, W] and `labels` int64 [N], both on the device that computes."""

    pixels: Tensor
    labels: Tensor
    dataset: Dataset

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over all pixels and labels: it tells two versions of the data apart."""
        content = hashlib.sha256(self.pixels.cpu().numpy().tobytes())
        content.update(self.labels.cpu().numpy().tobytes())
        return content.hexdigest()

    @cached_property
    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        both = torch.tensor([self.dataset.mean, self.dataset.std], device=self.pixels.device)
        return both[0].view(3, 1, 1), both[1].view(3, 1, 1)

    def normalized(self, pixels: Tensor, size: int = 0) -> Tensor:
        """float32 [n, 3, size, size], channels last: scaled to 0..1, resized to `size` (0: the data set's) and
        normalized."""
        x, size = pixels.float().div_(255), size or self.dataset.size
        if x.shape[-1] != size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = self._mean_and_std
        return x.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)

    def train_batches(
        self, sgd: Sgd, seed: int, epoch: int, ranks: Ranks, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches of one epoch from the `first` on: (normalized [n, 3, size, size], labels [n]), this
        rank's share of each.

        The order and the crops depend on `seed` and `epoch` alone; all ranks draw the same and take every
        world_size-th image of a batch. Every image comes once an epoch: the last batch is smaller, and a rank's share
        of it may be empty. Everything random is on the device before the first batch, which then waits for nothing.
        """
        count, device, size = len(self), self.pixels.device, sgd.image_size(epoch, self.dataset)
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(count, generator=generator).to(device)
        offsets = torch.randint(0, 2 * sgd.pad + 1, (count, 2), generator=generator).to(device)
        mirrored = (torch.rand(count, generator=generator) < (0.5 if sgd.flip else 0.0)).to(device)
        for start in range(first * sgd.batch, count, sgd.batch):
            share = slice(start + ranks.rank, start + sgd.batch, ranks.world_size)
            index = order[share]
            pixels = augment(self.pixels[index], sgd.pad, offsets[share], mirrored[share])
            yield self.normalized(pixels, size), self.labels[index]

    def calibration_batches(self, calibration: Calibration) -> Iterator[Tensor]:
        """Normalized batches [n, 3, size, size] of the images that `calibration` draws; the last may be smaller."""
        for part in torch.split(drawn(calibration, len(self)), calibration.batch):
            yield self.normalized(self.pixels[part.to(self.pixels.device)])

    def share(self, ranks: Ranks, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's part of the split in order, normalized, with labels; every image falls to exactly one rank."""
        pixels, labels = (whole[ranks.rank :: ranks.world_size] for whole in (self.pixels, self.labels))
        for start in range(0, len(labels), batch):
            yield self.normalized(pixels[start : start + batch]), labels[start : start + batch]


@lru_cache(maxsize=4)
def load(dataset: Dataset, split: str, folder: Path, device: torch.device) -> Images | Streamed:
    """The "train" or "test" split: a small set whole and verified, ImageNet as its files. Raises SuiteError where it
    is missing or damaged."""
    if dataset.name == "imagenet":
        return imagenet.find(dataset, split, folder, device)
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


def cifar10(split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [N, 32, 32, 3], int64 [N]) from torchvision's `cifar-10-batches-py` or from WebP shards in `folder`.

    Shards are lossless pictures train-0.webp .. train-4.webp and test-0.webp of 100 x 100 images each, sorted by
    class. Both are checked against the SHA-256 of the original pixels.
    """
    pixels, labels = _from_shards(split, folder) if shards(split, folder) else _from_batches(split, folder)
    order = np.argsort([hashlib.sha256(image.tobytes()).hexdigest() for image in pixels], kind="stable")
    pixels, labels = np.ascontiguousarray(pixels[order]), labels[order]
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    if digest != CIFAR10_SHA256[split]:
        raise SuiteError(
            f"the {split} images in {folder} are not CIFAR-10's: sha256 {digest[:16]}; fetch them anew"
        )
    return pixels, labels


def shards(split: str, folder: Path) -> list[Path]:
    """The WebP shards of a split that lie in `folder`, in order."""
    return sorted(folder.glob(f"{split}-*.webp"))


def _from_shards(split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    count = 5 if split == "train" else 1
    parts = []
    for file in (folder / f"{split}-{number}.webp" for number in range(count)):
        try:
            grid = np.asarray(Image.open(file).convert("RGB"))
            images = grid.reshape(100, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4)
        except (OSError, ValueError) as error:
            raise SuiteError(f"image shard {file} cannot be read: {error}; fetch it anew") from None
        parts.append(images.reshape(-1, 32, 32, 3))
    pixels = np.concatenate(parts)
    return pixels, np.arange(len(pixels)) // (len(pixels) // 10)


def _from_batches(split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from suite.vision import torchvision

    try:
        found = torchvision.datasets.CIFAR10(str(folder), train=split == "train", download=False)
    except (RuntimeError, OSError, ValueError) as error:
        raise SuiteError(
            f"no intact CIFAR-10 in {folder} ({str(error).splitlines()[0]}); it needs cifar-10-batches-py or "
            f"WebP shards; name another folder with --data, or let --download fetch it"
        ) from None
    return found.data, np.asarray(found.targets, dtype=np.int64)


def download(dataset: Dataset, folder: Path) -> None:
    """Fetch a data set that is not in `folder` yet, by torchvision, which checks its MD5."""
    if dataset.name == "cifar10" and not shards("test", folder):
        from suite.vision import torchvision

        try:
            torchvision.datasets.CIFAR10(str(folder), train=True, download=True)
        except Exception as error:
            raise SuiteError(
                f"CIFAR-10 cannot be downloaded into {folder}: {error}; fetch it elsewhere and name its folder "
                f"with --data"
            ) from None


def augment(pixels: Tensor, pad: int, offsets: Tensor, mirrored: Tensor) -> Tensor:
    """Crops of zero-padded images, some mirrored, all at once.

    pixels uint8 [n, 3, H, W]; offsets int64 [n, 2] in 0..2*pad, the crop's top and left; mirrored bool [n].
    """
    side = pixels.shape[-1]
    padded = F.pad(pixels, (pad,) * 4)
    steps = torch.arange(side, device=pixels.device)
    rows = offsets[:, :1] + steps
    columns = offsets[:, 1:] + torch.where(mirrored[:, None], steps.flip(0), steps)
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)
