"""ImageNet from real files by real worker processes: the same batches from any of them, and no damage goes unseen."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import ROOT
from fakes.image_files import COUNT, ONE, SMALL, Batches, epoch, find, sgd, write
from PIL import Image
from torch import Tensor

from suite.data.image_folder import Streamed
from suite.data.workers import default_workers
from suite.process.ranks import Ranks
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder to spoil."""
    return write(tmp_path)


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
    with pytest.raises(SuiteError, match="wants 1024 images, but there are only 22 to draw"):
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


def test_workers_end_with_their_data_set_even_when_the_garbage_collector_finds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then their queues are closed before their loader asks them to end, so that it loses patience."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    images = find(folder, workers=1)
    epoch(images)
    workers = [worker.pid for worker in images._loader._iterator._workers]  # type: ignore[union-attr]
    images.__dict__["itself"] = images
    del images
    gc.collect()
    assert gone(workers, within=5)


def test_the_default_workers_share_the_cores_among_the_ranks_of_a_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = len(os.sched_getaffinity(0))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_workers() == min(16, cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 * cores))
    assert default_workers() == 1


TRAINING = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from suite.data import image_folder, verify
from suite.process.ranks import CPU, Ranks
from suite.recipe import Dataset, Precision, Sgd

if __name__ == "__main__":
    heard = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
    images = image_folder.find(Dataset("imagenet", size=32), "train", Path(sys.argv[1]), CPU)
    batches = images.train_batches(Sgd(1, 1, 0.1, crop="resized", precision=Precision("O0")), 0, 0, Ranks())
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


@pytest.fixture
def training(
    folder: Path, tmp_path: Path
) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], list[int]]]]:
    """Starts a process that has seen the first batch of an epoch, does what its last lines say, and leads a group;
    gives it and the pids of its workers."""
    started = []

    def start(rest: str) -> tuple[subprocess.Popen[str], list[int]]:
        script = tmp_path / "training.py"
        script.write_text(TRAINING + "".join(f"    {line}\n" for line in rest.splitlines()))
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LOCAL_WORLD_SIZE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        workers = [int(pid) for pid in process.stdout.readline().split()]
        started.append((process, workers))
        return process, workers

    yield start
    for process, workers in started:
        process.kill()
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)
        process.communicate()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], within: float) -> bool:
    until = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_signals_to_the_whole_process_group_reach_the_main_process_and_spare_its_workers(
    training: Callable[[str], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    process, workers = training("sys.stdin.readline()\nprint(1 + sum(1 for _ in batches), *heard)")
    assert workers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        os.killpg(process.pid, number)
    time.sleep(0.3)
    said, errors = process.communicate("\n", timeout=60)
    assert set(said.split()) == {str(COUNT), "SIGTERM", "SIGINT", "SIGUSR2"}, errors
    assert process.returncode == 0 and gone(workers, within=5)


def test_workers_end_with_a_main_process_that_is_killed(
    training: Callable[[str], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    process, workers = training("time.sleep(600)")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    assert workers and all(map(alive, workers))
    process.kill()
    process.wait()
    assert gone([*workers, *map(int, children.split())], within=10)


def test_a_process_that_fails_in_mid_epoch_ends_and_so_do_its_workers(
    training: Callable[[str], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    process, workers = training("raise ValueError('the loss')")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and errors.rstrip().endswith("ValueError: the loss"), errors
    assert workers and gone(workers, within=5)


SWEEP = """
from suite.methods.amax import Amax
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Training

def sweep():
    half = Precision("O2", "bfloat16")
    sgd = Sgd(2, 8, 0.01, crop="resized", precision=half, world_size=2)
    training = Training(Network("resnet50_imagenet", classes=3), Dataset("imagenet", size=32), sgd)
    return [Recipe(training, Amax(8, 8, feed=Calibration(images=8, batch=4)))]
"""


def launch(own: Path) -> subprocess.CompletedProcess[str]:
    (own / "own_sweep.py").write_text(SWEEP)
    words = ["launch", "own_sweep.py", "--on", "torchrun", "--workers", "2", "--data", ".", "--runs", "runs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "suite", *words]
    return subprocess.run(command, cwd=own, env=environment, capture_output=True, text=True, timeout=240)


def test_a_training_and_a_calibration_run_from_files_on_two_ranks(own: Path) -> None:
    done = launch(own)
    assert done.stdout.endswith("2 stages: 2 done\n"), done.stdout + done.stderr
    journals = [file.read_text() for file in (own / "runs").glob("*/events.jsonl")]
    digests = {find(own, split).digest for split in ("train", "test")}
    assert len(journals) == 2 and all(digest in journal for digest in digests for journal in journals)
    (told,) = (own / "runs").glob(
        "*/artifacts/layers.json"
    )  # of the recipe, 54 layers of torchvision's ResNet-50
    layers = json.loads(told.read_text())["layers"]
    assert len(layers) == 54 and all(one[of]["sqnr_db"] > 20 for one in layers for of in ("weight", "input"))


def test_damage_is_reported_before_anything_is_launched(own: Path) -> None:
    victim = next((own / "imagenet" / "train").rglob("*.JPEG"))
    victim.write_bytes(victim.read_bytes()[:-100])
    done = launch(own)
    assert done.returncode == 2 and "1 of 29 images are damaged" in done.stderr and victim.name in done.stderr
    assert not list((own / "runs").glob("*/events.jsonl"))
