"""A user's images: in an .npz, in class folders, or from a function of theirs; and what is said where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suite.data import datasets
from suite.data.complete import check_data, completed
from suite.data.images import Images
from suite.methods.amax import Amax
from suite.networks import network_check
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Stage, Training
from suite.recipe.errors import SuiteError

CPU = torch.device("cpu")


SGD = Sgd(1, 32, 0.05, pad=1, precision=Precision("O0"))


def arrays(count: int = 30, side: int = 8, classes: int = 3, channels: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shape = (side, side, channels)[: 3 if channels > 1 else 2]
    return {
        f"{what}_{split}": generator.integers(0, 256, (count, *shape), dtype=np.uint8)
        if what == "x"
        else np.arange(count) % classes
        for split in ("train", "test")
        for what in "xy"
    }


def saved(folder: Path, **changes: Any) -> Dataset:
    """own.npz in `folder`, with these arrays changed."""
    np.savez(
        folder / "own.npz",
        **{name: value for name, value in {**arrays(), **changes}.items() if value is not None},
    )
    return Dataset("own")


def training(dataset: Dataset, network: Network | None = None, **changes: Any) -> Training:
    return Training(network or Network("resnet20"), dataset, replace(SGD, **changes))


def one(stage: Stage, folder: Path) -> Any:
    [done] = completed([stage], folder)
    return done


def test_what_is_not_given_is_taken_from_the_training_images_and_is_in_the_key(tmp_path: Path) -> None:
    stage = training(saved(tmp_path))
    done = one(stage, tmp_path)
    x = arrays()["x_train"].astype(np.float64) / 255
    assert (done.dataset.size, done.network.classes) == (8, 3)
    assert done.dataset.mean == tuple(round(value, 4) for value in x.mean((0, 1, 2)))
    assert done.dataset.std == tuple(round(value, 4) for value in x.std((0, 1, 2)))
    assert done.params["mean"].count(",") == 2 and done.key != stage.key
    assert done.name == "train resnet20 own classes 3 size 8 O0 1 epoch batch 32 lr 0.05 pad 1 seed 0"
    images = datasets.load(done.dataset, "train", tmp_path, CPU)
    assert isinstance(images, Images)
    normalized = images.normalized(images.pixels)
    assert abs(float(normalized.mean())) < 1e-3 and abs(float(normalized.std()) - 1) < 1e-2


def test_what_is_given_stays_and_needs_no_data(tmp_path: Path) -> None:
    stage = training(Dataset("own", (0.5,) * 3, (0.25,) * 3, 8), Network("resnet20", classes=7))
    assert one(stage, tmp_path / "nowhere") is stage
    recipe = Recipe(training(Dataset("digits")), Amax())
    assert one(recipe, tmp_path / "nowhere") is recipe
    with pytest.raises(
        SuiteError, match=r"no data set 'own' in .*nowhere: neither own.npz .* there is none; name anoth"
    ):
        completed([training(Dataset("own"))], tmp_path / "nowhere")


def test_grey_images_become_three_equal_channels_or_stay_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", **arrays(channels=1))
    three, grey = (datasets.load(Dataset("grey", channels=n), "test", tmp_path, CPU) for n in (3, 1))
    assert isinstance(three, Images) and isinstance(grey, Images)
    assert three.pixels.shape == (30, 3, 8, 8) and grey.pixels.shape == (30, 1, 8, 8)
    assert (three.pixels == grey.pixels).all() and len(three.dataset.mean) == 3 and len(grey.dataset.std) == 1
    with pytest.raises(SuiteError, match="the images of own have 3 channels; leave Dataset's channels=1 out"):
        datasets.load(replace(saved(tmp_path), channels=1), "test", tmp_path, CPU)


def test_arrays_of_more_channels_are_taken_where_the_data_set_says_how_many(tmp_path: Path) -> None:
    np.savez(tmp_path / "bands.npz", **arrays(channels=5))
    done = one(training(Dataset("bands", channels=5), Network("torchvision/resnet18")), tmp_path)
    assert len(done.dataset.mean) == 5 and done.params["channels"] == 5
    images = datasets.load(done.dataset, "test", tmp_path, CPU)
    assert isinstance(images, Images) and images.pixels.shape == (30, 5, 8, 8)
    assert next(iter(images.share(Ranks(), 4)))[0].shape == (4, 5, 8, 8)
    with pytest.raises(SuiteError, match="to have 3 channels, but got 5"):
        network_check.check_networks([done])


def test_an_archive_in_the_place_of_a_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "flowers.zip").write_bytes(b"PK")
    with pytest.raises(
        SuiteError, match="no data set 'flowers' in .*, but the file flowers.zip; unpack an archive"
    ):
        completed([training(Dataset("flowers"))], tmp_path)


X, Y = arrays()["x_train"], arrays()["y_train"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"y_test": None},
            "own.npz lacks y_test; it has x_train, y_train, x_test: save it with x_train, y_train, x_te",
        ),
        (
            {"x_train": X / 255},
            r"own.npz, train: images are float64, not uint8 .* \(255 \* x\).round\(\).astype",
        ),
        (
            {"x_train": X.transpose(0, 3, 1, 2)},
            r"\[30, 3, 8, 8\], channels first; save x.transpose\(0, 2, 3, 1\)",
        ),
        (
            {"x_train": X.transpose(0, 3, 1, 2)[:, :, :6]},
            r"\[30, 3, 6, 8\], channels first; save x.transpose\(0, 2, 3, 1\)",
        ),
        ({"x_train": X.astype(int)}, r"are int64, .* from 0 to 255; save x.round\(\).astype\('uint8'\)"),
        ({"x_train": X * np.uint16(257)}, r"are uint16, .* save \(x // 256\).astype\('uint8'\) of 16 bits"),
        ({"x_train": X / 127.5 - 1}, "with values from -1 to 1; save images before they are normalized"),
        (
            {"x_train": X[..., :2]},
            r"own have 2 channels, not 3; give Dataset\(..., channels=2\), and a network",
        ),
        ({"x_train": X[0, 0]}, r"images are \[8, 3\], not \[images, height, width\]"),
        ({"x_train": X[:, :6]}, "images are 6 x 8 pixels; make them square"),
        ({"x_train": X[:20]}, "20 images and 30 labels; there must be one for each"),
        (
            {"y_train": np.eye(3)[Y]},
            r"labels are \[30, 3\], not one an image; of one-hot labels save y.argmax\(1\)",
        ),
        ({"y_train": Y / 1}, "labels are float64, not whole numbers; save y.astype"),
        (
            {"y_train": np.array(["ant", "bee", "cat"])[Y]},
            r"labels are <U3, not whole numbers; save numpy.unique\(y, return_inverse=True\)\[1\]",
        ),
        ({"y_train": Y + 10_000_000}, "a label is 10000002; number the classes from 0 on"),
        ({"y_train": 2 * Y}, "no training image of own has the label 1, and there are labels up to 4"),
        ({"y_train": Y - 1}, "a label is -1; number the classes from 0 on"),
        ({"y_train": Y + 1}, "no training image of own has the label 0, and there are labels up to 3"),
        (
            {"y_train": np.array([{}] * 30)},
            "own.npz is no .npz of plain arrays: it holds Python objects",
        ),
    ],
)
def test_arrays_that_are_something_else_are_refused_with_the_remedy(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    dataset = saved(tmp_path, **changes)
    with pytest.raises(SuiteError, match=words):
        completed([training(dataset)], tmp_path)


def test_labels_of_keras_in_a_column_are_taken(tmp_path: Path) -> None:
    dataset = saved(tmp_path, y_train=Y[:, None])
    assert one(training(dataset), tmp_path).network.classes == 3


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"text", b"PK\x03\x04"):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(SuiteError, match="own.npz is no .npz of plain arrays") as refused:
            completed([training(Dataset("own"))], tmp_path)
        assert "pickle" not in str(refused.value), "NumPy's advice is to let the file run code"


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (
            lambda data: training(data, Network("resnet20", classes=2)),
            "the images of own are of 3 classes, and the network has 2; leave Network's classes out",
        ),
        (
            lambda data: Recipe(training(data), Amax(feed=Calibration(31, 16))),
            "calibrates on 31 images, more than its training split has, 30; give the method a Calibration",
        ),
        (
            lambda data: training(data, crop="resized"),
            "crop 'resized' is not for images in arrays; use 'padded'",
        ),
    ],
)
def test_stages_that_the_data_does_not_suit_are_refused_before_anything_runs(
    tmp_path: Path, stage: Any, words: str
) -> None:
    done = completed([stage(saved(tmp_path))], tmp_path)
    with pytest.raises(SuiteError, match=words):
        check_data(done, tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Dataset("a/b"),
            "dataset 'a/b' is unknown; use one of digits, cifar10, cifar100, imagenet, the name",
        ),
        (lambda: Dataset("own", channels=0), "Dataset.channels must be a whole number from 1 on, got 0"),
        (lambda: Dataset("own", mean=(0.5,) * 3), "are 3 numbers each, std above 0, or both left out"),
        (lambda: Dataset("own", (0.5,), (0.0,), channels=1), "are 1 number each, std above 0"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused_when_the_value_is_made(make: Any, words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        make()


LOADER = """
import numpy as np

def load(split, folder):
    pixels = np.load(folder / f"{split}.npy")
    return pixels, np.arange(len(pixels)) % 3

def wrong(split, folder):
    return np.zeros((4, 8, 8)), np.zeros(4)

def fails(split, folder):
    raise RuntimeError("no disk")

def images_alone(split, folder):
    return np.zeros((4, 8, 8), np.uint8)

def ragged(split, folder):
    return [np.zeros((8, 8), np.uint8), np.zeros((9, 9), np.uint8)], [0, 1]

seven = 7
"""


def test_a_function_in_the_users_file_loads_a_split(tmp_path: Path) -> None:
    (tmp_path / "my_data.py").write_text(LOADER)
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}.npy", X)
    dataset = Dataset(f"{tmp_path}/my_data.py:load")
    assert dataset.name == "my_data.py:load" and len(dataset.sha256) == 64
    done = one(training(dataset), tmp_path)
    assert (done.dataset.size, done.network.classes, done.params["dataset_sha256"]) == (8, 3, dataset.sha256)
    check_data([done], tmp_path)
    for name, words in (
        ("wrong", "my_data.py:wrong, train: images are float64, not uint8"),
        ("fails", "my_data.py, line 12: RuntimeError: no disk"),
        ("seven", "my_data.py:seven is a int; name a function that loads a split"),
        ("gone", "my_data.py has no 'gone'; it has np, load, wrong, fails, images_alone, ragged, seven"),
        ("ragged", "ragged, train: what it gave is no array: .*; return numpy arrays of images of one size"),
        ("images_alone", r"images_alone gave a ndarray for the .* split; return \(images, labels\)"),
    ):
        with pytest.raises(SuiteError, match=words):
            completed([training(Dataset(f"{tmp_path}/my_data.py:{name}"))], tmp_path)
