"""ImageNet from its files: any worker, rank or restart makes the same batch, bit for bit.

It lies in `folder` as torchvision's ImageFolder has it: imagenet/train/CLASS/*.JPEG and imagenet/val/CLASS/*.JPEG.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import data as loading

from suite.data.images import drawn
from suite.data.workers import Decoder, Request, Requests, Workers, _end_with_main_process, default_workers
from suite.process.ranks import Ranks
from suite.recipe import Calibration, Dataset, Sgd
from suite.recipe.errors import SuiteError

THREADS = 16
"""That list and check files: enough to keep a disk or a file server busy."""


def find(dataset: Dataset, split: str, folder: Path, device: torch.device) -> Streamed:
    """The "train" or "test" split of ImageNet in `folder`, read from its folders; no file is opened.

    Raises SuiteError where a folder is missing or has no images, or train lacks a class.
    """
    from suite.networks.torchvision_import import torchvision

    endings = torchvision.datasets.folder.IMG_EXTENSIONS
    place = folder / "imagenet" / ("val" if split == "test" else "train")
    own, label = _classes(place), {name: n for n, name in enumerate(_classes(place.parent / "train"))}
    if strange := [name for name in own if name not in label]:
        lacks = f"{len(strange)} classes that {place.parent}/train lacks, first {strange[0]}"
        raise SuiteError(f"{place} has {lacks}; both must name the classes alike")
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(own, pool.map(lambda name: _images(place / name, endings), own), strict=True))
    if empty := [name for name in own if not found[name]]:
        raise SuiteError(f"{place / empty[0]} has no images; copy them there, or remove the folder")
    files = [f"{name}/{file}" for name in own for file, _ in found[name]]
    sizes = [size for name in own for _, size in found[name]]
    labels = torch.tensor([label[name] for name in own for _ in found[name]])
    return Streamed(dataset, place, files, sizes, labels, device)


def _classes(place: Path) -> list[str]:
    found = sorted(entry.name for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []
    if not found:
        raise SuiteError(
            f"{place} is missing or has no class folders; ImageNet must lie in {place.parent}/train/CLASS/*.JPEG and "
            f"{place.parent}/val/CLASS/*.JPEG (links will do); or name another folder with --data"
        )
    return found


def _images(place: Path, endings: tuple[str, ...]) -> list[tuple[str, int]]:
    """The name and size of each image in a class's folder, sorted."""
    with os.scandir(place) as entries:
        found = [entry for entry in entries if entry.name.lower().endswith(endings)]
    return sorted((entry.name, entry.stat().st_size if entry.is_file() else 0) for entry in found)


@dataclass(frozen=True, eq=False)
class Streamed:
    """One split: `files` are CLASS/NAME in `folder`, sorted; `sizes` their bytes (0 where a link is broken); `labels`
    int64 [N] the places of their classes among train's, sorted. Batches come on `device`.

    `workers` processes decode (0: this one) and live as long as the object. One pass at a time: a new one ends the one
    before. An image that cannot be decoded raises SuiteError.
    """

    dataset: Dataset
    folder: Path
    files: list[str]
    sizes: list[int]
    labels: Tensor
    device: torch.device
    workers: int = field(default_factory=default_workers)
    _requests: Requests = field(default_factory=Requests)

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over the names and sizes of all files: it tells two versions of the data apart."""
        lines = (f"{file}\0{size}\n" for file, size in zip(self.files, self.sizes, strict=True))
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()

    def train_batches(
        self, sgd: Sgd, seed: int, epoch: int, ranks: Ranks, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches of one epoch from the `first` on: (normalized [n, 3, size, size], labels [n]), this
        rank's share of each.

        The order and the crops depend on `seed` and `epoch` alone; every rank takes every world_size-th image of a
        batch. Every image comes once an epoch: the last batch is smaller, and a rank's share of it may be empty.
        """
        count = len(self)
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(count, generator=generator)
        seeds = torch.randint(2**62, (count,), generator=generator)
        starts = range(first * sgd.batch, count, sgd.batch)
        shares = (order[at + ranks.rank : at + sgd.batch : ranks.world_size] for at in starts)
        size = sgd.image_size(epoch, self.dataset)
        return self._batches(self._request(index, size, seeds[index].tolist(), sgd.flip) for index in shares)

    def calibration_batches(self, calibration: Calibration) -> Iterator[Tensor]:
        """Normalized batches [n, 3, size, size] of the images that `calibration` draws; the last may be smaller."""
        parts = torch.split(drawn(calibration, len(self)), calibration.batch)
        for x, _ in self._batches(self._request(index, self.dataset.size) for index in parts):
            yield x

    def share(self, ranks: Ranks, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's part of the split in order, normalized, with labels; every image falls to exactly one rank."""
        mine = torch.arange(len(self))[ranks.rank :: ranks.world_size]
        parts = (mine[at : at + batch] for at in range(0, len(mine), batch))
        return self._batches(self._request(index, self.dataset.size) for index in parts)

    def _request(
        self, index: Tensor, size: int, seeds: list[int] | None = None, flip: bool = False
    ) -> Request:
        files = [self.files[number] for number in index.tolist()]
        return Request(files, self.labels[index].tolist(), size, seeds, flip)

    def _batches(self, requests: Iterator[Request]) -> Iterator[tuple[Tensor, Tensor]]:
        self._requests.latest = requests
        mean, std = torch.tensor([self.dataset.mean, self.dataset.std], device=self.device).view(2, 3, 1, 1)
        for decoded in self._loader:
            if isinstance(decoded, str):
                raise SuiteError(decoded)
            pixels, labels = (part.to(self.device, non_blocking=True) for part in decoded)
            x = pixels.float().div_(255).sub_(mean).div_(std)
            yield x.contiguous(memory_format=torch.channels_last), labels
            if self._requests.latest is not requests:
                raise SuiteError(f"another pass over {self.folder} ended this one; end one, then begin")

    @cached_property
    def _loader(self) -> loading.DataLoader[Any]:
        return loading.DataLoader(
            Decoder(self.folder),
            batch_size=None,  # a request is a batch already
            sampler=self._requests,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else each pass would draw from the process's own
            multiprocessing_context=Workers() if self.workers else None,
            worker_init_fn=_end_with_main_process,
            persistent_workers=self.workers > 0,
            prefetch_factor=4 if self.workers else None,
        )
