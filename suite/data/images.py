"""Small data sets, held whole on the device as uint8 and augmented there: batches, and each rank's share of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Sgd
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted


@dataclass(frozen=True)
class Images:
    """One split: `pixels` uint8 [N, channels, H, W] and `labels` int64 [N], both on the device that computes; `names`
    of the classes by label, where they have other names than their labels."""

    pixels: Tensor
    labels: Tensor
    dataset: Dataset
    names: tuple[str, ...] = ()

    crops: ClassVar[tuple[str, ...]] = ("padded",)

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
        return both[0].view(-1, 1, 1), both[1].view(-1, 1, 1)

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
        generator = epoch_generator(seed, epoch)
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

    def views(self, sgd: Sgd, calibration: Calibration, count: int) -> Iterator[Tensor]:
        """Normalized batches of the images that `calibration` draws, and of no others, `count` times: each time in
        another order, and cropped and mirrored in another way, as `sgd` has it."""
        index = drawn(calibration, len(self)).to(self.pixels.device)
        own = replace(self, pixels=self.pixels[index], labels=self.labels[index])
        for number in range(1, count + 1):
            for x, _ in own.train_batches(sgd, calibration.seed, number, Ranks()):
                yield x

    def share(self, ranks: Ranks, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's part of the split in order, normalized, with labels; every image falls to exactly one rank."""
        pixels, labels = (whole[ranks.rank :: ranks.world_size] for whole in (self.pixels, self.labels))
        for start in range(0, len(labels), batch):
            yield self.normalized(pixels[start : start + batch]), labels[start : start + batch]


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """What draws the order of an epoch and its crops, on the CPU. The factor is more than the epochs of any training,
    so that no epoch of one seed is one of another's."""
    return torch.Generator().manual_seed(seed * 100_003 + epoch)


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


def drawn(calibration: Calibration, count: int) -> Tensor:
    """int64 [calibration.images]: which of `count` training images it draws. Raises SuiteError if it wants more."""
    if calibration.images > count:
        raise SuiteError(
            f"calibration wants {counted(calibration.images, 'image')}, but there are only {count} to draw"
        )
    generator = torch.Generator().manual_seed(calibration.seed)
    return torch.randperm(count, generator=generator)[: calibration.images]
