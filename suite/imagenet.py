"""ImageNet from its files: any worker, rank or restart makes the same batch, bit for bit.

It lies in `folder` as torchvision's ImageFolder has it: imagenet/train/CLASS/*.JPEG and imagenet/val/CLASS/*.JPEG.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from multiprocessing import connection, context, forkserver, popen_forkserver, process, resource_tracker
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils import data as loading

from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Sgd
from suite.signals import ASKING
from suite.values import SuiteError

THREADS = 16
"""That list and check files: enough to keep a disk or a file server busy."""


def find(dataset: Dataset, split: str, folder: Path, device: torch.device) -> Streamed:
    """The "train" or "test" split of ImageNet in `folder`, read from its folders; no file is opened.

    Raises SuiteError where a folder is missing or has no images, or train lacks a class.
    """
    from suite.vision import torchvision

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


class Request(NamedTuple):
    """A batch for a worker to decode. An image's seed sets its crop and flip; without, the crop is the centre. `size`
    is the side of the crop in pixels."""

    files: list[str]
    labels: list[int]
    size: int
    seeds: list[int] | None
    flip: bool


class Requests:
    """The loader's sampler. It stays in the main process: so a pass can ask anything of workers that live on from
    the pass before, and none of them holds a million names."""

    latest: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.latest


def default_workers() -> int:
    """SUITE_DATA_WORKERS or, without it, the cores this process may use, shared with the other ranks that torchrun
    started here: 1 to 16."""
    if "SUITE_DATA_WORKERS" in os.environ:
        return int(os.environ["SUITE_DATA_WORKERS"])
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(16, max(1, len(os.sched_getaffinity(0)) // ranks))


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


def drawn(calibration: Calibration, count: int) -> Tensor:
    """int64 [calibration.images]: which of `count` training images it draws. Raises SuiteError if it wants more."""
    if calibration.images > count:
        raise SuiteError(f"calibration wants {calibration.images} images, but there are only {count} to draw")
    generator = torch.Generator().manual_seed(calibration.seed)
    return torch.randperm(count, generator=generator)[: calibration.images]


@dataclass(frozen=True)
class Decoder(loading.Dataset[Any]):
    """A worker's part: from a request to uint8 pixels."""

    folder: Path

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | str:
        """(uint8 [n, 3, size, size], channels last; int64 [n]), or what is wrong with an image: the message of an
        error raised here would be buried under the worker's traceback."""
        prepared = _preparation(request.size, request.seeds is not None, request.flip)
        shape = (len(request.files), 3, request.size, request.size)
        pixels = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        for number, file in enumerate(request.files):
            try:
                with Image.open(self.folder / file) as image:
                    rgb = image.convert("RGB")
            except Exception as error:  # Pillow's decoders raise many kinds
                return f"image {self.folder / file}: {error}; fetch it anew"
            with torch.random.fork_rng(devices=[]):
                if request.seeds is not None:
                    torch.default_generator.manual_seed(request.seeds[number])
                pixels[number] = prepared(rgb)
        return pixels, torch.tensor(request.labels, dtype=torch.int64)


@lru_cache(maxsize=4)
def _preparation(size: int, random: bool, flip: bool) -> Callable[[Image.Image], Tensor]:
    """From a decoded image to uint8 [3, size, size]. It is resized as a tensor, in a third to a half of Pillow's time;
    of 1000 values 998 or more are Pillow's, and the others differ by 1."""
    from suite.vision import torchvision  # noqa: F401, I001  (first: it makes the next import work on a CPU)
    from torchvision.transforms import v2

    fixed = (v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size))
    drawn = (v2.RandomResizedCrop(size, scale=(0.08, 1), ratio=(3 / 4, 4 / 3), antialias=True),)
    flipped = (v2.RandomHorizontalFlip(),) if flip else ()
    return v2.Compose([v2.PILToTensor(), *(drawn if random else fixed), *flipped])  # type: ignore[no-any-return]


class Workers(context.ForkServerContext):
    """Makes workers that are forks of a server: those of this process would copy locks that the threads of CUDA and
    NCCL hold, and spawned ones would each import torch, for seconds and hundreds of MB.

    Server and workers begin with a mask of signals: what asks the whole process group to stop is for the main process
    to hear, which then still needs its workers.
    """

    def __init__(self) -> None:
        self.set_forkserver_preload(["suite.imagenet", "suite.vision"])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        try:
            resource_tracker.ensure_running()  # if it was not, it leaves SIGINT and SIGTERM unblocked
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    class Process(context.ForkServerProcess):  # noqa: D106
        @staticmethod
        def _Popen(worker: process.BaseProcess) -> popen_forkserver.Popen:  # noqa: N802  (overridden)
            return Handle(worker)


class Handle(popen_forkserver.Popen):
    """Of a worker. DataLoader and Python end workers left over by SIGTERM, which these do not hear, and wait."""

    def terminate(self) -> None:
        self.kill()


def _end_with_main_process(worker: int) -> None:
    """In a worker: end when the main process does, be it by SIGKILL. DataLoader's own watchdog waits for the parent's
    end; but that is the fork server, which in turn waits for its workers."""
    main = multiprocessing.parent_process()
    assert main is not None

    Thread(target=lambda: connection.wait([main.sentinel]) and os._exit(1), daemon=True).start()
