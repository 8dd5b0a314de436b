"""ImageNet from real files by real worker processes: the same batches from any of them, and no damage goes unseen."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.image_files import COUNT, ONE, SMALL, Batches, epoch, find, sgd
from PIL import Image
from torch import Tensor

from suite.data.image_folder import Streamed
from suite.data.workers import default_workers
from suite.ranks import Ranks
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError


@pytest.fixture(scope="module")
def train(folder: Path) -> Streamed:
    """The training split, with two workers that live through this whole file."""
    return find(folder, workers=2)


def assert_same(ours: Batches, theirs: Batches) -> None:
    assert len(ours) == len(theirs)
    for (x, y), (other_x, other_y) in zip(ours, theirs, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


def bare(x: Tensor) -> Tensor:
    """0..255 again."""
    return (x * torch.tensor(SMALL.std).view(3, 1, 1) + torch.tensor(SMALL.mean).view(3, 1, 1)) * 255


def test_evaluation_shows_what_pillow_resizes_to_256_224ths_and_crops_centrally(folder: Path) -> None:
    images = find(folder, "test")
    shown = list(images.share(ONE, 3))
    assert [len(y) for _, y in shown] == [3, 3, 1]
    x, labels = torch.cat([x for x, _ in shown]), torch.cat([y for _, y in shown])
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    for k, file in enumerate(images.files):
        image = Image.open(images.folder / file).convert("RGB")
        scale = 37 / min(image.size)  # 32 * 256 / 224 = 36.57
        size = [37 if side == min(image.size) else int(side * scale) for side in image.size]
        resized = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        left, top = (round((side - 32) / 2) for side in size)
        expected = torch.from_numpy(np.array(resized.crop((left, top, left + 32, top + 32)))).permute(2, 0, 1)
        difference = (bare(x[k]) - expected).abs()
        assert difference.max() < 1.01 and (difference > 0.5).float().mean() < 0.02, file
        assert labels[k] == ["n0a", "n0b", "n0c"].index(file.split("/")[0])


def test_normalization_equals_torchvisions(folder: Path) -> None:
    from suite.networks.torchvision_import import torchvision

    images = find(folder, "test")
    plain = replace(images, dataset=replace(SMALL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    (scaled, _), (normalized, _) = next(plain.share(ONE, 7)), next(images.share(ONE, 7))
    theirs = torchvision.transforms.Normalize(SMALL.mean, SMALL.std)(scaled)
    assert torch.equal(normalized, theirs)


def test_an_epoch_shows_every_image_once_over_uneven_ranks_in_equally_many_steps(train: Streamed) -> None:
    shares = [epoch(train, ranks=Ranks(r, r, 3), batch=7) for r in range(3)]
    assert [[len(y) for _, y in mine] for mine in shares] == [[3, 3, 3, 1], [2, 2, 2, 0], [2, 2, 2, 0]]
    assert shares[1][3][0].shape == (0, 3, 32, 32) and shares[1][3][1].dtype == torch.int64
    labels = torch.cat([y for mine in shares for _, y in mine])
    assert torch.equal(labels.bincount(), train.labels.bincount())
    crops = torch.cat([x for mine in shares for x, _ in mine])
    assert len({x.numpy().tobytes() for x in crops}) == COUNT


def test_two_ranks_together_see_the_batches_of_one(train: Streamed) -> None:
    one, two = epoch(train), [epoch(train, ranks=Ranks(r, r, 2)) for r in range(2)]
    for k, (x, labels) in enumerate(one):
        joined, pictures = torch.empty_like(labels), torch.empty_like(x)
        for r in range(2):
            joined[r::2], pictures[r::2] = two[r][k][1], two[r][k][0]
        assert torch.equal(joined, labels) and torch.equal(pictures, x)


def test_in_evaluation_every_image_falls_to_exactly_one_rank_in_the_splits_order(folder: Path) -> None:
    images = find(folder, "test")
    whole = torch.cat([x for x, _ in images.share(ONE, 7)])
    for world_size in (2, 3, 9):
        joined = torch.zeros_like(whole)
        for rank in range(world_size):
            mine = [x for x, _ in images.share(Ranks(rank, rank, world_size), 2)]
            assert len(mine) == -(-len(range(rank, 7, world_size)) // 2)
            if mine:
                joined[rank::world_size] = torch.cat(mine)
        assert torch.equal(joined, whole)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_resumed_epoch_equals_the_tail_of_a_whole_one_bit_for_bit_with_any_workers(
    folder: Path, train: Streamed, workers: int
) -> None:
    images = find(folder, workers=workers)
    whole = epoch(train, number=4)
    assert_same(epoch(images, number=4, first=2), whole[2:])
    assert_same(epoch(images, number=4), whole)
    assert epoch(images, number=4, first=5) == []


def test_order_and_crops_depend_on_seed_and_epoch_and_flips_can_be_left_out(folder: Path) -> None:
    images = find(folder)
    whole = {
        (seed, number): next(images.train_batches(sgd(COUNT), seed, number, ONE))[0].sum(0)
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert len({x.numpy().tobytes() for x in whole.values()}) == 4
    (plain, _), (flipped, _) = (
        next(images.train_batches(sgd(COUNT, flip), 0, 0, ONE)) for flip in (False, True)
    )
    mirrored = [torch.equal(one, other.flip(2)) for one, other in zip(plain, flipped, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(plain, flipped, strict=True)]
    assert sum(mirrored) + sum(same) == COUNT and 4 < sum(mirrored) < 18


def test_the_process_s_random_numbers_are_left_alone(folder: Path, train: Streamed) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    epoch(find(folder))
    epoch(find(folder, workers=1))
    epoch(train)
    assert torch.equal(torch.get_rng_state(), before)


def test_calibration_draws_uncropped_images_by_its_seed_and_says_when_there_are_too_few(
    train: Streamed,
) -> None:
    centred = {x.numpy().tobytes() for batch, _ in train.share(ONE, 6) for x in batch}

    def drawn(seed: int) -> list[Tensor]:
        return list(train.calibration_batches(Calibration(images=8, batch=3, seed=seed)))

    assert [len(x) for x in drawn(0)] == [3, 3, 2]
    shown = {x.numpy().tobytes() for x in torch.cat(drawn(0))}
    assert len(shown) == 8 and shown < centred
    assert torch.equal(torch.cat(drawn(0)), torch.cat(drawn(0)))
    assert not torch.equal(torch.cat(drawn(0)), torch.cat(drawn(1)))
    with pytest.raises(SuiteError, match="wants 1,024 images, but there are only 22 to draw"):
        next(train.calibration_batches(Calibration()))


def test_an_abandoned_epoch_leaves_nothing_in_the_next_and_cannot_go_on(
    folder: Path, train: Streamed
) -> None:
    clean = find(folder)
    abandoned = train.train_batches(sgd(2), 0, 0, ONE)
    next(abandoned)
    assert_same(epoch(train, number=1), epoch(clean, number=1))
    again = train.train_batches(sgd(2), 0, 0, ONE)
    next(again)
    assert_same(list(train.share(ONE, 4)), list(clean.share(ONE, 4)))
    assert_same(epoch(train, number=2), epoch(clean, number=2))
    with pytest.raises(SuiteError, match="another pass over .*train ended this one"):
        next(again)


def test_workers_live_on_from_epoch_to_epoch(folder: Path) -> None:
    images = find(folder, workers=2)
    epoch(images)
    workers = {worker.pid for worker in images._loader._iterator._workers}  # type: ignore[union-attr]
    list(images.share(ONE, 4))
    epoch(images, number=1)
    assert {worker.pid for worker in images._loader._iterator._workers} == workers  # type: ignore[union-attr]


def test_the_default_workers_share_the_cores_among_the_ranks_of_a_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = len(os.sched_getaffinity(0))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_workers() == min(16, cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 * cores))
    assert default_workers() == 1
