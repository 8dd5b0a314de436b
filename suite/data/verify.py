"""Checks image files before a training starts, and names those that are damaged."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from suite.data.image_folder import THREADS, Streamed, find
from suite.data.workers import open_image
from suite.ranks import CPU
from suite.recipe import Dataset
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.files import read_object, write_json

STAMP = "{}.checked.json"
"""Beside the folder of a data set's name: the digests of both splits when they passed `check`."""

IMAGENET = Dataset("imagenet")


def check(
    folder: Path, report: Callable[[int, int], None] | None = None, dataset: Dataset = IMAGENET
) -> None:
    """Check the beginning and the end of every image; `report` gets (files checked, files in all).

    Raises SuiteError that names the first 10 damaged files and what is wrong with each. A check that was passed is
    remembered in STAMP, if `folder` can be written to, until the name or size of a file changes. On 2 cores of an AMD
    EPYC it checks 20,000 files/s, at 7,500 if they come from the disk: 1 or 3 minutes for all of ImageNet.
    """
    splits, stamp = (
        [find(dataset, split, folder, CPU) for split in ("train", "test")],
        STAMP.format(dataset.name),
    )
    passed = {split.folder.name: split.digest for split in splits}
    if read_object(folder / stamp) == passed:
        return
    parts = [(split, start) for split in splits for start in range(0, len(split), 256)]
    total, done, damaged = sum(map(len, splits)), 0, list[str]()
    with ThreadPoolExecutor(THREADS) as pool:
        for count, faults in pool.map(_check_part, parts):
            done += count
            damaged += faults
            if report:
                report(done, total)
    if damaged:
        named = "".join(f"\n  {fault}" for fault in damaged[:10])
        raise SuiteError(
            f"{len(damaged)} of {counted(total, 'image')} damaged; fetch them anew. First:{named}"
        )
    with suppress(OSError):
        write_json(passed, folder / stamp)


ENDS = {"JPEG": (b"\xff\xda", b"\xff\xd9"), "PNG": (b"IDAT", b"IEND\xaeB`\x82")}
"""Of a format: what begins the last part of a file, and what ends it."""


def _check_part(part: tuple[Streamed, int]) -> tuple[int, list[str]]:
    """Of 256 files or what is left of a split: how many they are, and what is wrong with each damaged one."""
    split, start = part
    faults, files = [], split.files[start : start + 256]
    for file, size in zip(files, split.sizes[start : start + 256], strict=True):
        try:
            _examine(f"{split.folder}/{file}", size)
        except Exception as error:  # Pillow's decoders raise many kinds
            faults.append(f"{split.folder}/{file}: {error}")
    return len(files), faults


def _examine(file: str, size: int) -> None:
    """Raise what is wrong with an image. It is decoded only where its header and its end do not tell: bytes after
    the end, say, are harmless."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO has no content, and waits for some
    try:
        head, tail = os.pread(descriptor, 16_384, 0), os.pread(descriptor, 64, max(0, size - 64))
    finally:
        os.close(descriptor)
    if not head:
        raise SuiteError("it is empty")
    with suppress(Exception), open_image(io.BytesIO(head)) as image:
        if tail.rstrip(b"\0").endswith(ENDS[str(image.format)][1]):
            return
    with open_image(file) as image:
        image.load()
        begin, end = ENDS.get(str(image.format), (b"", b""))
    content = Path(file).read_bytes()
    if end not in content[max(0, content.rfind(begin)) :]:  # Pillow takes zeros for pixels
        raise SuiteError("it is cut off")
