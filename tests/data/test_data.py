"""Batches: every image once, each rank its share, the same for every copy of a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suite.data import datasets
from suite.data.images import Images, augment
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Precision, Sgd
from suite.recipe.errors import SuiteError

PLAIN = Dataset("digits", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CPU = torch.device("cpu")


def numbered(count: int) -> Images:
    """Image k is k in every pixel, its label too."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).contiguous()
    return Images(pixels, torch.arange(count), PLAIN)


def sgd(batch: int) -> Sgd:
    return Sgd(epochs=1, batch=batch, lr=0.1, pad=2, precision=Precision("O0"))


@given(count=st.integers(1, 200), world_size=st.integers(1, 5), batch=st.integers(1, 64))
def test_in_evaluation_every_image_falls_to_exactly_one_rank(count: int, world_size: int, batch: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        for _, labels in numbered(count).share(Ranks(rank, rank, world_size), batch):
            seen += labels.tolist()
    assert sorted(seen) == list(range(count))


@given(st.integers(1, 200), st.integers(1, 5), st.integers(5, 40), st.integers(0, 5))
def test_an_epoch_shows_every_image_once_and_every_rank_takes_as_many_steps(
    count: int, world_size: int, batch: int, epoch: int
) -> None:
    ranks = [
        [
            labels.tolist()
            for _, labels in numbered(count).train_batches(sgd(batch), 1, epoch, Ranks(r, r, world_size))
        ]
        for r in range(world_size)
    ]
    assert {len(mine) for mine in ranks} == {-(-count // batch)}
    assert sorted(label for mine in ranks for labels in mine for label in labels) == list(range(count))


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 60))
def test_an_epoch_goes_on_from_any_batch_as_if_it_had_not_stopped(count: int, batch: int, first: int) -> None:
    whole = list(numbered(count).train_batches(sgd(batch), 0, 2, Ranks()))
    rest = list(numbered(count).train_batches(sgd(batch), 0, 2, Ranks(), first))
    assert len(rest) == max(0, len(whole) - first)
    for (x, labels), (x_again, labels_again) in zip(whole[first:], rest, strict=True):
        assert torch.equal(x, x_again) and torch.equal(labels, labels_again)


def test_two_ranks_together_see_the_batches_of_one() -> None:
    images = numbered(100)
    one = list(images.train_batches(sgd(20), 3, 1, Ranks()))
    two = [list(images.train_batches(sgd(20), 3, 1, Ranks(r, r, 2))) for r in range(2)]
    for k, (x, labels) in enumerate(one):
        joined = torch.empty_like(labels)
        pictures = torch.empty_like(x)
        for r in range(2):
            joined[r::2], pictures[r::2] = two[r][k][1], two[r][k][0]
        assert torch.equal(joined, labels) and torch.equal(pictures, x)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        torch.manual_seed(torch.initial_seed() + 1)
        return [
            label for _, y in numbered(50).train_batches(sgd(8), seed, epoch, Ranks()) for label in y.tolist()
        ]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@given(st.integers(0, 2**31), st.integers(0, 4))
@settings(max_examples=20)
def test_augmentation_equals_padding_cropping_and_mirroring_one_by_one(seed: int, pad: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=generator)
    offsets = torch.randint(0, 2 * pad + 1, (6, 2), generator=generator)
    mirrored = torch.rand(6, generator=generator) < 0.5
    expected: list[Tensor] = []
    for k in range(6):
        padded = torch.nn.functional.pad(pixels[k], (pad,) * 4)
        top, left = offsets[k].tolist()
        crop = padded[:, top : top + 8, left : left + 8]
        expected.append(crop.flip(2) if mirrored[k] else crop)
    assert torch.equal(augment(pixels, pad, offsets, mirrored), torch.stack(expected))


def test_normalization_equals_torchvisions() -> None:
    from suite.networks.torchvision_import import torchvision

    transforms = torchvision.transforms
    dataset = Dataset("cifar10")
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels, torch.arange(5), dataset)
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)])
    expected = torch.stack([theirs(image.permute(1, 2, 0).numpy()) for image in pixels])
    assert torch.equal(images.normalized(pixels), expected)


def test_images_are_enlarged_where_the_data_set_says_so() -> None:
    images = Images(numbered(3).pixels, numbered(3).labels, Dataset("cifar10", size=224))
    assert images.normalized(images.pixels).shape == (3, 3, 224, 224)


def test_progressive_resizing_shrinks_the_first_epochs_and_nothing_else() -> None:
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels, torch.arange(6), Dataset("cifar10"))
    usual = Sgd(3, 4, 0.1, pad=4)
    small = dataclasses.replace(usual, image_sizes=(16, 24))
    for epoch, side in enumerate((16, 24, 32)):
        whole, resized = (list(images.train_batches(how, 0, epoch, Ranks())) for how in (usual, small))
        assert [x.shape[-1] for x, _ in resized] == [side, side]
        for (x, labels), (x_small, labels_small) in zip(whole, resized, strict=True):
            expected = torch.nn.functional.interpolate(x, size=side, mode="bilinear", antialias=True)
            torch.testing.assert_close(x_small, expected if side < 32 else x)
            assert torch.equal(labels, labels_small)
    assert next(images.share(Ranks(), 4))[0].shape[-1] == 32
    assert next(images.calibration_batches(Calibration(images=4))).shape[-1] == 32


def test_the_digits_are_split_without_overlap_and_normalize_to_zero_mean() -> None:
    from suite.sweeps.quick import GREY

    train, test = (datasets.load(Dataset("digits", *GREY), split, Path(), CPU) for split in ("train", "test"))
    assert (len(train), len(test)) == Dataset.IMAGES["digits"] == (1198, 599)
    shown = {image.numpy().tobytes() for image in train.pixels}
    assert sum(image.numpy().tobytes() in shown for image in test.pixels) == 0
    x = train.normalized(train.pixels)
    assert abs(float(x.mean())) < 1e-3 and abs(float(x.std()) - 1) < 1e-3
    assert test.labels.bincount().min() > 50


def test_the_digits_are_those_that_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = datasets.digits("test")
    bunch = load_digits()
    assert (labels == bunch.target[::3]).all()
    corners = np.rint(bunch.images[::3, ::7, ::7] * (255 / 16))  # enlarging leaves the corners as they are
    assert (pixels[:, ::31, ::31, 0] == corners).all()


def test_calibration_draws_by_its_seed_and_says_when_there_are_too_few() -> None:
    def drawn(seed: int) -> list[float]:
        batches = numbered(100).calibration_batches(Calibration(images=20, batch=8, seed=seed))
        return [value for x in batches for value in x[:, 0, 0, 0].tolist()]

    assert len(drawn(0)) == len(set(drawn(0))) == 20
    assert drawn(0) == drawn(0) != drawn(1)
    with pytest.raises(SuiteError, match="wants 1,024 images, but there are only 100"):
        list(numbered(100).calibration_batches(Calibration()))


def test_a_missing_folder_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"no CIFAR-10 in .*nowhere.*name another folder with --data"):
        datasets.load(Dataset("cifar10"), "test", tmp_path / "nowhere", CPU)
