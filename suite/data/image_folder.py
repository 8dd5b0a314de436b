"""ImageNet and other folders of image files: any worker, rank or restart makes the same batch, bit for bit.

They lie in `folder` as torchvision's ImageFolder has them: NAME/train/CLASS/*.JPEG and NAME/val/CLASS/*.JPEG or, of
others than ImageNet, NAME/test/CLASS/*; images in folders within CLASS are of that class. Hidden files and folders,
macOS' `._` files among them, are neither images nor classes. A user's folder differs from ImageNet in what is done to
its images: they are turned as their EXIF says, broken links are left out, and those that are squares of the data set's
side already are evaluated whole. Others are resized and cropped as ImageNet's.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import data as loading

from suite.data.images import drawn, epoch_generator
from suite.data.workers import (
    Decoder,
    Request,
    Requests,
    Workers,
    default_workers,
    end_with_main_process,
    open_image,
    prefetch,
)
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Sgd
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted

THREADS = 16
"""That list and check files: enough to keep a disk or a file server busy."""

SAMPLE = 2000
"""Images that the side and the normalization of a folder are taken from, evenly spread over the training split."""


def find(dataset: Dataset, split: str, folder: Path, device: torch.device) -> Streamed:
    """The "train" or "test" split of the data set in `folder`, read from its folders; no file is opened.

    Raises SuiteError where a folder is missing or has no images, or train lacks a class.
    """
    from suite.networks.torchvision_import import torchvision

    endings = torchvision.datasets.folder.IMG_EXTENSIONS
    place = split_folder(dataset, split, folder)
    own, label = _classes(place), {name: n for n, name in enumerate(_classes(place.parent / "train"))}
    if dataset.channels not in (1, 3):
        raise SuiteError(f"{place} holds image files, of 3 channels or 1; got channels={dataset.channels}")
    if strange := [name for name in own if name not in label]:
        lacks = f"{counted(len(strange), 'class')} that {place.parent}/train lacks, first {strange[0]}"
        raise SuiteError(f"{place} has {lacks}; both must name the classes alike")
    with ThreadPoolExecutor(THREADS) as pool:
        listed = dict(zip(own, pool.map(lambda name: _images(place / name, endings), own), strict=True))
    found = {
        name: [entry for entry in images if not _is_skipped(*entry, dataset)]
        for name, (images, _) in listed.items()
    }
    skipped = sum(len(images) for images, _ in listed.values()) - sum(map(len, found.values()))
    if empty := [name for name in own if not found[name]]:
        others = listed[empty[0]][1]
        but = f" that end with {', '.join(endings)}, but {_counted(others)}" if others else ""
        raise SuiteError(f"{place / empty[0]} has no images{but}; copy them there, or remove the folder")
    files = [f"{name}/{file}" for name in own for file, _ in found[name]]
    sizes = [size for name in own for _, size in found[name]]
    labels = torch.tensor([label[name] for name in own for _ in found[name]])
    names = () if dataset.name == "imagenet" else tuple(label)
    others = sum((others for _, others in listed.values()), Counter[str]())
    return Streamed(dataset, place, files, sizes, labels, device, names, skipped, _counted(others))


def _counted(others: Counter[str]) -> str:
    """`3 files .gif, 1 file .txt`, the most first."""
    return ", ".join(
        f"{counted(count, 'file')} {ending or 'without ending'}" for ending, count in others.most_common(5)
    )


def split_folder(dataset: Dataset, split: str, folder: Path) -> Path:
    """Where the class folders of a split lie: `train`; `test` or, where that is missing, `val`, as ImageNet has it."""
    whole = folder / dataset.name
    held_out = "val" if dataset.name == "imagenet" or not (whole / "test").is_dir() else "test"
    return whole / (held_out if split == "test" else "train")


def _is_skipped(name: str, size: int, dataset: Dataset) -> bool:
    """Whether a file is hidden or, in a user's folder, a broken link."""
    return _is_hidden(name.rpartition("/")[2]) or (size == 0 and dataset.name != "imagenet")


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or what macOS adds to an archive."""
    return name.startswith(".") or name == "__MACOSX"


def _classes(place: Path) -> list[str]:
    folders = [entry.name for entry in place.iterdir() if entry.is_dir()] if place.is_dir() else []
    found = sorted(name for name in folders if not _is_hidden(name))
    if not found:
        whole = place.parent
        own = whole.name != "imagenet"
        there = sorted(entry.name for entry in whole.iterdir()) if whole.is_dir() else []
        raise SuiteError(
            f"{place} is missing or has no class folders; {f'the images of {whole.name}' if own else 'ImageNet'} must "
            f"lie in {whole}/train/CLASS/*.JPEG and {whole}/val/CLASS/*.JPEG{' or test' * own} (links will do); there "
            f"is {', '.join(there[:6]) or 'nothing'}; or name another folder with --data"
        )
    return found


def _images(place: Path, endings: tuple[str, ...]) -> tuple[list[tuple[str, int]], Counter[str]]:
    """The name and size of each image in a class's folder and the folders within it, in ImageFolder's order, and how
    many other files there are, by their endings."""
    others: Counter[str] = Counter()
    found = _images_within(str(place), "", endings, (), others)
    return sorted(found, key=lambda entry: entry[0].rpartition("/")[::2]), others


def _images_within(
    place: str,
    within: str,
    endings: tuple[str, ...],
    above: tuple[tuple[int, int], ...],
    others: Counter[str],
) -> list[tuple[str, int]]:
    """Of the folder `within` a class's `place`, a path that is empty or ends with a slash; `above` are the folders
    that it lies in, by device and inode: a link to one of them is not followed. Counts `others`, but hidden ones."""
    facts = os.stat(f"{place}/{within}")
    mine = facts.st_dev, facts.st_ino
    if mine in above:
        return []
    found, inside = [], list[str]()
    with os.scandir(f"{place}/{within}") as entries:
        for entry in entries:
            path = Path(entry) if entry.is_symlink() else entry  # DirEntry fails on a link to itself
            if path.is_dir():
                inside += [] if _is_hidden(entry.name) else [f"{within}{entry.name}/"]
            elif entry.name.lower().endswith(endings):
                found.append((within + entry.name, entry.stat().st_size if path.is_file() else 0))
            elif not _is_hidden(entry.name):
                others[os.path.splitext(entry.name)[1].lower()] += 1
    for folder in inside:
        found += _images_within(place, folder, endings, (*above, mine), others)
    return found


def _spread(files: list[str]) -> list[str]:
    return files[:: -(-len(files) // SAMPLE)]


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
    names: tuple[str, ...] = ()
    """Of the classes, by label, where their folders name them."""
    skipped: int = 0
    """Files that were left out: hidden ones, empty ones and broken links."""
    others: str = ""
    """Files that were left out because they are no images by their ending, in words."""
    workers: int = field(default_factory=default_workers)
    _requests: Requests = field(default_factory=Requests)

    crops: ClassVar[tuple[str, ...]] = ("resized", "padded")

    def __len__(self) -> int:
        return len(self.files)

    @property
    def is_own(self) -> bool:
        """Whether it is a user's folder."""
        return self.dataset.name != "imagenet"

    def side(self) -> int:
        """The side in pixels of the images, where the first SAMPLE are squares of one; else 224."""
        sizes = set[tuple[int, int]]()
        for file in _spread(self.files):
            try:
                with open_image(self.folder / file) as image:
                    sizes.add(image.size)
            except Exception as error:  # Pillow's decoders raise many kinds
                raise SuiteError(
                    f"{self.folder / file} is no image: {error}; fetch it anew, or remove it"
                ) from None
        width, height = next(iter(sizes))
        return width if len(sizes) == 1 and width == height else 224

    def sample(self, size: int) -> Tensor:
        """uint8 [n, channels, size, size]: up to SAMPLE images, spread over the split, as they are evaluated."""
        files = _spread(self.files)
        request = Request(files, [0] * len(files), size, None, False, self.dataset.channels, self.is_own)
        decoded = Decoder(self.folder)[request]
        if isinstance(decoded, str):
            raise SuiteError(decoded)
        return decoded[0]

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
        generator = epoch_generator(seed, epoch)
        order = torch.randperm(count, generator=generator)
        seeds = torch.randint(2**62, (count,), generator=generator)
        starts = range(first * sgd.batch, count, sgd.batch)
        shares = (order[at + ranks.rank : at + sgd.batch : ranks.world_size] for at in starts)
        size = sgd.image_size(epoch, self.dataset)
        pad = sgd.pad if sgd.crop == "padded" else None
        return self._batches(
            self._request(index, size, seeds[index].tolist(), sgd.flip, pad) for index in shares
        )

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
        self,
        index: Tensor,
        size: int,
        seeds: list[int] | None = None,
        flip: bool = False,
        pad: int | None = None,
    ) -> Request:
        files = [self.files[number] for number in index.tolist()]
        labels, channels = self.labels[index].tolist(), self.dataset.channels
        return Request(files, labels, size, seeds, flip, channels, self.is_own, pad)

    def _batches(self, requests: Iterator[Request]) -> Iterator[tuple[Tensor, Tensor]]:
        first = next(requests, None)
        requests = iter(()) if first is None else chain((first,), requests)
        self._requests.latest = requests
        if first is not None and not self._requests.batch_bytes:
            self._requests.batch_bytes = len(first.files) * first.channels * first.size**2
        mean, std = torch.tensor([self.dataset.mean, self.dataset.std], device=self.device).view(2, -1, 1, 1)
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
            worker_init_fn=end_with_main_process,
            persistent_workers=self.workers > 0,
            prefetch_factor=prefetch(self.workers, self._requests.batch_bytes) if self.workers else None,
        )
