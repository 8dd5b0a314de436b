"""Processes that decode image files, forked from a server."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection, context, forkserver, popen_forkserver, process, resource_tracker
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils import data as loading

from suite.recipe.errors import SuiteError
from suite.stop import ASKING


class Request(NamedTuple):
    """A batch for a worker to decode. An image's seed sets its crop and flip; without, the crop is the centre. `size`
    is the side of the crop in pixels. `is_own`: of a user's folder, not ImageNet. `pad`: of crops of padded images;
    None for crops that are resized."""

    files: list[str]
    labels: list[int]
    size: int
    seeds: list[int] | None
    flip: bool
    channels: int = 3
    is_own: bool = False
    pad: int | None = None


class Requests:
    """The loader's sampler. It stays in the main process: so a pass can ask anything of workers that live on from
    the pass before, and none of them holds a million names."""

    latest: Iterator[Request] = iter(())
    batch_bytes: int = 0
    """Of the first batch that was asked for, decoded."""

    def __iter__(self) -> Iterator[Request]:
        return self.latest


PREFETCH_BYTES = 1 << 30
"""How much of a split may be decoded ahead, in a rank's shared memory and, on a GPU's machine, pinned besides. A batch
of 256 images of ImageNet is 38.5 MB; a container has 64 MB of shared memory unless it is given more (--shm-size)."""


def prefetch(workers: int, batch_bytes: int) -> int:
    """How many batches of so many bytes each of the `workers` decodes ahead: 4, or as many as PREFETCH_BYTES hold, and
    1 at least."""
    return max(1, min(4, PREFETCH_BYTES // max(1, workers * batch_bytes)))


def default_workers() -> int:
    """SUITE_DATA_WORKERS or, without it, the cores this process may use, shared with the other ranks that torchrun
    started here: 1 to 16. Raises SuiteError where the variable is no whole number."""
    if wanted := os.environ.get("SUITE_DATA_WORKERS"):
        if not wanted.isdecimal():
            raise SuiteError(f"SUITE_DATA_WORKERS is {wanted!r}; set it to a whole number from 0 on")
        return int(wanted)
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")  # another launcher may have left anything there
    beside = max(1, int(ranks)) if ranks.isdecimal() else 1
    return min(16, max(1, len(os.sched_getaffinity(0)) // beside))


FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Those that Pillow decodes itself. For EPS it would run Ghostscript, and that what the file says."""


def open_image(file: Path | str | BinaryIO) -> Image.Image:
    """An image of one of FORMATS, whatever its name ends with. Raises what Pillow does."""
    return Image.open(file, formats=FORMATS)


@dataclass(frozen=True)
class Decoder(loading.Dataset[Any]):
    """A worker's part: from a request to uint8 pixels."""

    folder: Path

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | str:
        """(uint8 [n, channels, size, size], channels last; int64 [n]), or what is wrong with an image: the message of
        an error raised here would be buried under the worker's traceback."""
        prepared = _preparation(
            request.size, request.seeds is not None, request.flip, request.is_own, request.pad
        )
        shape = (len(request.files), request.channels, request.size, request.size)
        pixels = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
        for number, file in enumerate(request.files):
            try:
                with open_image(self.folder / file) as image:
                    rgb = _turned(image, request.channels) if request.is_own else image.convert("RGB")
            except Exception as error:  # Pillow's decoders raise many kinds
                return f"image {self.folder / file}: {error}; fetch it anew"
            with torch.random.fork_rng(devices=[]):
                if request.seeds is not None:
                    torch.default_generator.manual_seed(request.seeds[number])
                pixels[number] = prepared(rgb)
        return pixels, torch.tensor(request.labels, dtype=torch.int64)


def _turned(image: Image.Image, channels: int) -> Image.Image:
    """Upright, in 8 bits a value, grey or RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, of which Pillow's own conversion keeps the lowest 255 values
        image = Image.fromarray((np.asarray(image).clip(0, 65_535) // 256).astype(np.uint8))
    return image.convert("L" if channels == 1 else "RGB")


@lru_cache(maxsize=4)
def _preparation(
    size: int, random: bool, flip: bool, is_own: bool, pad: int | None
) -> Callable[[Image.Image], Tensor]:
    """From a decoded image to uint8 [3, size, size]. It is resized as a tensor, in a third to a half of Pillow's time;
    of 1000 values 998 or more are Pillow's, and the others differ by 1."""
    from suite.networks.torchvision_import import torchvision  # noqa: F401, I001  (first: it makes the next import work on a CPU)
    from torchvision.transforms import v2

    fixed: list[Any] = [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
    drawn: list[Any] = [v2.RandomResizedCrop(size, scale=(0.08, 1), ratio=(3 / 4, 4 / 3), antialias=True)]
    if is_own:
        crop, whole = v2.Compose(fixed), (size, size)
        fixed = [v2.Lambda(lambda x: x if x.shape[-2:] == whole else crop(x))]
    if pad is not None:
        drawn = [*fixed, v2.RandomCrop(size, padding=pad)]
    flipped = [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([v2.PILToTensor(), *([*drawn, *flipped] if random else fixed)])  # type: ignore[no-any-return]


class Workers(context.ForkServerContext):
    """Makes workers that are forks of a server: those of this process would copy locks that the threads of CUDA and
    NCCL hold, and spawned ones would each import torch, for seconds and hundreds of MB.

    Server and workers begin with a mask of signals: what asks the whole process group to stop is for the main process
    alone, which then still needs its workers.
    """

    def __init__(self) -> None:
        self.set_forkserver_preload(["suite.data.workers", "suite.networks.torchvision_import"])
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
    """Of a worker. DataLoader and Python end workers left over by SIGTERM, which these block, and wait."""

    def terminate(self) -> None:
        self.kill()


def end_with_main_process(worker: int) -> None:
    """In a worker: end when the main process does, be it by SIGKILL. DataLoader's own watchdog waits for the parent's
    end; but that is the fork server, which in turn waits for its workers."""
    main = multiprocessing.parent_process()
    assert main is not None

    Thread(target=lambda: connection.wait([main.sentinel]) and os._exit(1), daemon=True).start()
