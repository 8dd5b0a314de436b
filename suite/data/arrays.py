"""Images and labels as a user gives them in arrays: `NAME.npz`, or what a function in the user's file returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from suite.networks.zoo import before_import
from suite.recipe import Dataset, user_files
from suite.recipe.errors import SuiteError, first_line
from suite.recipe.words import counted

NAMES = ("x_train", "y_train", "x_test", "y_test")
"""The arrays of an .npz, as Keras names them."""

Arrays = tuple[np.ndarray, np.ndarray]

MOST_CLASSES = 1_000_000
"""A label from here on is a name, such as a number in a catalogue."""


def of_npz(file: Path, split: str) -> Arrays:
    """(uint8 [N, H, W, C], int64 [N]) of the "train" or "test" split. Raises SuiteError where the file lacks an array,
    is damaged, or holds something else."""
    try:
        with np.load(file, allow_pickle=False) as content:
            if missing := [name for name in NAMES if name not in content.files]:
                has = ", ".join(content.files) or "nothing"
                raise SuiteError(
                    f"{file} lacks {', '.join(missing)}; it has {has}: save it with {', '.join(NAMES)}"
                )
            pixels, labels = content[f"x_{split}"], content[f"y_{split}"]
    except SuiteError:
        raise
    except Exception as error:  # zipfile's, zlib's, tokenize's, and MemoryError of a damaged header
        why = first_line(error)
        if "pickle" in why:  # NumPy's advice is to let the file run code
            why = "it holds Python objects, or is something else"
        raise SuiteError(
            f"{file} is no .npz of plain arrays: {why}; save it with "
            f"numpy.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)"
        ) from None
    return checked(pixels, labels, f"{file}, {split}")


def of_loader(dataset: Dataset, split: str, folder: Path) -> Arrays:
    """The same, of the function in the user's file that the data set names. Raises SuiteError, with the file's line,
    where it fails, and for what are no such arrays."""
    before_import(dataset.sha256)
    load = user_files.load(user_files.Reference(dataset.name, dataset.sha256))
    file = user_files.file_of(dataset.sha256)
    if not callable(load):
        raise SuiteError(f"{dataset.name} is a {type(load).__name__}; name a function that loads a split")
    try:
        loaded = load(split, folder)
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:
        raise user_files.broken(file, error) from error
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        raise SuiteError(
            f"{dataset.name} gave a {type(loaded).__name__} for the {split} split; return (images, labels), as an "
            f".npz holds them"
        )
    try:
        pixels, labels = map(np.asarray, loaded)
    except Exception as error:  # of images of several sizes, or tensors on a GPU
        raise SuiteError(
            f"{dataset.name}, {split}: what it gave is no array: {first_line(error)}; return numpy arrays of "
            f"images of one size and of their labels"
        ) from None
    return checked(pixels, labels, f"{dataset.name}, {split}")


def checked(pixels: np.ndarray, labels: np.ndarray, where: str) -> Arrays:
    """(uint8 [N, H, W, C], int64 [N]) of uint8 [N, H, W] or [N, H, W, C], H = W, and whole labels from 0, [N] or
    [N, 1]. Raises SuiteError for anything else."""
    if pixels.dtype != np.uint8:
        raise SuiteError(f"{where}: images are {pixels.dtype}, not uint8 from 0 to 255{_as_uint8(pixels)}")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim == 4 and _are_channels_first(*pixels.shape[1:]):
        raise SuiteError(
            f"{where}: images are {list(pixels.shape)}, channels first; save x.transpose(0, 2, 3, 1)"
        )
    if pixels.ndim != 4 or not pixels.shape[3]:
        raise SuiteError(
            f"{where}: images are {list(pixels.shape)}, not [images, height, width] or [images, height, width, "
            f"channels]"
        )
    if pixels.shape[1] != pixels.shape[2] or not pixels.shape[1]:
        raise SuiteError(
            f"{where}: images are {pixels.shape[1]} x {pixels.shape[2]} pixels; make them square"
        )
    return np.ascontiguousarray(pixels), _labels(labels, len(pixels), where)


def _are_channels_first(one: int, two: int, three: int) -> bool:
    return one != two and (two == three or (one in (1, 3, 4) and three > 4))


def _as_uint8(pixels: np.ndarray) -> str:
    """How images of another type become uint8, by the values that they have."""
    if not pixels.size or not np.issubdtype(pixels.dtype, np.number):
        return "; save x.astype('uint8') of values from 0 to 255"
    low, high = float(pixels.min()), float(pixels.max())
    words = f", with values from {low:g} to {high:g}; save "
    if low >= 0 and high <= 1:
        return f"{words}(255 * x).round().astype('uint8')"
    if low >= 0 and high <= 255:
        return f"{words}x.round().astype('uint8')"
    if low >= 0 and high <= 65_535 and np.issubdtype(pixels.dtype, np.integer):
        return f"{words}(x // 256).astype('uint8') of 16 bits a value"
    return f"{words}images before they are normalized: the suite normalizes them"


def _labels(labels: np.ndarray, images: int, where: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = "; of one-hot labels save y.argmax(1)" if labels.ndim == 2 else ""
        raise SuiteError(f"{where}: labels are {list(labels.shape)}, not one an image{hint}")
    if not np.issubdtype(labels.dtype, np.integer):
        number = np.issubdtype(labels.dtype, np.number) or labels.dtype == bool
        hint = "y.astype('int64')" if number else "numpy.unique(y, return_inverse=True)[1]"
        raise SuiteError(f"{where}: labels are {labels.dtype}, not whole numbers; save {hint}")
    if len(labels) != images or not images:
        raise SuiteError(
            f"{where}: {counted(images, 'image')} and {counted(len(labels), 'label')}; there must be one for each"
        )
    if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
        strange = labels.min() if labels.min() < 0 else labels.max()
        raise SuiteError(f"{where}: a label is {strange}; number the classes from 0 on")
    return labels.astype(np.int64)
