"""CIFAR-10 and CIFAR-100 from their files, in one canonical order; CIFAR-10 is checked by the SHA-256 of its pixels.

The order is by the SHA-256 of each image's pixels: every copy, however its files are sorted, gives the same batches
for the same seed, and the classes are mixed. (In an order by class, a model that normalizes by the statistics of its
batch falls from 60 % to 15 %.)
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from suite.data import arrays
from suite.recipe.errors import SuiteError, first_line
from suite.recipe.words import counted

CIFAR10_SHA256 = {
    "train": "32b25bb65187cdb40e66b2bd4dbb2de04f62e2d521f74c46a56f39f2afb56e96",
    "test": "27f7d008727f5b9a8f5b01f61503d2f52d3ba7f5ffb2c331b5b82775de2e2d72",
}
"""Of the pixels in canonical order: uint8, [N, 32, 32, 3] in RGB, row by row."""


CLASSES: dict[str, tuple[str, ...]] = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": (),
}
"""Their names by label, where they have other names than their labels."""

BATCHES: dict[str, tuple[str, dict[str, tuple[str, ...]], str]] = {
    "cifar10": (
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
        "labels",
    ),
    "cifar100": ("cifar-100-python", {"train": ("train",), "test": ("test",)}, "fine_labels"),
}
"""The folder, the files of each split and the entry of the labels, as their author pickled them."""


def cifar(name: str, split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [N, 32, 32, 3], int64 [N]) of "cifar10" or "cifar100", from `NAME.npz` (x_train, y_train, x_test, y_test)
    or from the author's `cifar-10-batches-py` or `cifar-100-python` in `folder`, pickled anew or not.

    Raises SuiteError where it is missing, damaged, or not that data set.
    """
    file = folder / f"{name}.npz"
    pixels, labels = arrays.of_npz(file, split) if file.is_file() else _from_batches(name, split, folder)
    order = np.argsort([hashlib.sha256(image.tobytes()).hexdigest() for image in pixels], kind="stable")
    pixels, labels = np.ascontiguousarray(pixels[order]), labels[order]
    classes = 10 if name == "cifar10" else 100
    wanted = (50_000 if split == "train" else 10_000) // classes
    counts = np.bincount(labels, minlength=classes)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    is_it = digest == CIFAR10_SHA256[split] if name == "cifar10" else pixels.shape[1:] == (32, 32, 3)
    if not is_it or counts.tolist() != [wanted] * classes:
        raise SuiteError(
            f"the {split} images in {folder} are not {name}'s: sha256 {digest[:16]}, {counted(len(labels), 'image')} "
            f"of {counted(int(np.count_nonzero(counts)), 'class')}; fetch them anew"
        )
    return pixels, labels


def has_files(name: str, folder: Path) -> bool:
    """Whether there is something of the data set in `folder`."""
    return (folder / f"{name}.npz").is_file() or (folder / BATCHES[name][0]).is_dir()


def _from_batches(name: str, split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    place, files, entry = BATCHES[name]
    try:
        parts = [_unpickled(folder / place / file) for file in files[split]]
        pixels = np.concatenate([np.asarray(part["data"], dtype=np.uint8) for part in parts])
        labels = np.concatenate([np.asarray(part[entry], dtype=np.int64) for part in parts])
        return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
    except Exception as error:  # of files that are missing, cut off, or something else
        shown = name.upper().replace("CIFAR", "CIFAR-")
        found = (
            f"no intact {shown} in {folder} ({first_line(error)})"
            if (folder / place).exists()
            else f"no {shown} in {folder}"
        )
        raise SuiteError(
            f"{found}; it needs {place} or {name}.npz; name another folder with "
            f"--data, or let `suite launch --download` fetch it"
        ) from None


class _Plain(pickle.Unpickler):
    """Makes arrays and plain values, and calls nothing else that a file may name."""

    def find_class(self, module: str, name: str) -> Any:
        known = {("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype")}
        known |= {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"the file wants {module}.{name}")
        return super().find_class(module, name)


def _unpickled(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return _read(stream)


def _read(stream: BinaryIO) -> dict[str, Any]:
    content = _Plain(stream, encoding="latin1").load()
    return {str(name): value for name, value in content.items()}
