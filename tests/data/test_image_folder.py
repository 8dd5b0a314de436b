"""ImageNet from real files by real worker processes: the same batches from any of them, and no damage goes unseen."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
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
from fakes.image_files import COUNT, picture, write
from PIL import Image
from torch import Tensor

from suite.data import image_folder, verify
from suite.data.image_folder import Streamed
from suite.data.workers import Requests, default_workers
from suite.process.ranks import Ranks
from suite.recipe import IMAGENET_MEAN, IMAGENET_STD, Calibration, Dataset, Precision, Sgd
from suite.recipe.errors import SuiteError

CPU = torch.device("cpu")


SMALL = Dataset("imagenet", IMAGENET_MEAN, IMAGENET_STD, size=32)


ONE = Ranks()


Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder to spoil."""
    return write(tmp_path)


def find(folder: Path, split: str = "train", workers: int = 0) -> Streamed:
    return replace(image_folder.find(SMALL, split, folder, CPU), workers=workers, _requests=Requests())


@pytest.fixture(scope="module")
def train(folder: Path) -> Streamed:
    """The training split, with two workers that live through this whole file."""
    return find(folder, workers=2)


def sgd(batch: int = 5, flip: bool = True) -> Sgd:
    return Sgd(epochs=1, batch=batch, lr=0.1, crop="resized", flip=flip, precision=Precision("O0"))


def epoch(images: Streamed, number: int = 0, first: int = 0, ranks: Ranks = ONE, batch: int = 5) -> Batches:
    return list(images.train_batches(sgd(batch), 3, number, ranks, first))


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


def jpeg(number: int = 0) -> bytes:
    stream = io.BytesIO()
    picture(number).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def png() -> bytes:
    stream = io.BytesIO()
    picture(0).save(stream, "PNG")
    return stream.getvalue()


def test_every_kind_of_damage_is_found_and_named_before_a_training(own: Path) -> None:
    train, zeros = own / "imagenet/train", b"\0" * 1000
    damage = {
        "n0a/empty.JPEG": b"",
        "n0a/half.JPEG": jpeg()[: len(jpeg()) // 2],
        "n0a/half and zeros.JPEG": jpeg()[: len(jpeg()) // 2] + zeros,
        "n0a/without its last byte.JPEG": jpeg()[:-1],
        "n0b/text.JPEG": b"<html>404 Not Found</html>",
        "n0b/half.png": png()[: len(png()) // 2],
        "n0b/without its end.png": png()[:-12],
        "n0b/header.jpg": jpeg()[:100],
    }
    for name, content in damage.items():
        (train / name).write_bytes(content)
    (own / "imagenet/val/n0c/gone.JPEG").symlink_to(own / "nowhere")
    with pytest.raises(SuiteError) as raised:
        verify.check(own)
    first, *named = str(raised.value).splitlines()
    assert first.startswith("9 of 38 images are damaged; fetch them anew")
    listed = {line.split(": ")[0].strip() for line in named}
    assert listed == {f"{train}/{name}" for name in damage} | {f"{own}/imagenet/val/n0c/gone.JPEG"}
    assert any("empty.JPEG: it is empty" in line for line in named)
    assert not (own / "imagenet.checked.json").exists()


def test_of_many_damaged_images_ten_are_named(own: Path) -> None:
    for number in range(12):
        (own / f"imagenet/train/n0a/{number}.JPEG").write_bytes(b"text")
    with pytest.raises(SuiteError, match="12 of 41 images are damaged") as raised:
        verify.check(own)
    assert len(str(raised.value).splitlines()) == 11


def test_unusual_images_that_are_whole_pass(own: Path) -> None:
    place = own / "imagenet/train/n0a"
    (place / "padded.JPEG").write_bytes(jpeg() + b"\0" * 1000)
    (place / "something after the end.JPEG").write_bytes(jpeg() + b"junk" * 40)
    (place / "png inside.JPEG").write_bytes(png())
    exif = Image.Exif()
    exif[270] = "a long description " * 2000
    picture(0).save(place / "long header.JPEG", exif=exif)
    picture(0).save(place / "progressive.JPEG", progressive=True)
    picture(0).save(place / "cyan.JPEG", "JPEG", quality=95)
    picture(0, "CMYK").save(place / "cmyk.JPEG")
    picture(0).save(place / "other.webp")
    picture(0).save(place / "other.bmp")
    verify.check(own)
    assert len(epoch(find(own), batch=31)[0][1]) == 31


def test_a_passed_check_is_remembered_until_a_file_changes_its_size(own: Path) -> None:
    def looked_at() -> list[tuple[int, int]]:
        reports: list[tuple[int, int]] = []
        verify.check(own, lambda done, total: reports.append((done, total)))
        return reports

    assert looked_at() == [(COUNT, COUNT + 7), (COUNT + 7, COUNT + 7)]
    assert looked_at() == []
    digest = find(own).digest
    file = own / "imagenet/train" / find(own).files[0]
    file.write_bytes(file.read_bytes() + b"\0")
    assert find(own).digest != digest and find(own, "test").digest != digest
    assert len(looked_at()) == 2
    assert looked_at() == []
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SuiteError, match="1 of 29 images are damaged"):
        looked_at()
    (own / "imagenet.checked.json").write_text("torn {")
    file.write_bytes(jpeg())
    assert len(looked_at()) == 2


def test_a_check_that_cannot_be_remembered_passes_all_the_same(own: Path) -> None:
    (own / "imagenet.checked.json").mkdir()
    verify.check(own)
    assert list((own / "imagenet.checked.json").iterdir()) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_met_only_while_training_names_the_file_in_one_line(own: Path, workers: int) -> None:
    spoilt = own / "imagenet/train/n0b/spoilt.JPEG"
    spoilt.write_bytes(jpeg()[: len(jpeg()) // 2])
    images = find(own, workers=workers)
    with pytest.raises(SuiteError) as raised:
        epoch(images)
    said = str(raised.value)
    assert said.startswith(f"image {spoilt}: image file is truncated")
    assert said.endswith("fetch it anew") and "\n" not in said
    del raised  # its traceback holds the data set
    spoilt.write_bytes(jpeg())
    assert len(epoch(images)) == 5, "the workers live on"


def refusal(folder: Path, split: str = "test") -> str:
    with pytest.raises(SuiteError) as raised:
        image_folder.find(SMALL, split, folder, CPU)
    return str(raised.value)


def test_a_missing_folder_or_split_says_which_layout_is_wanted(own: Path) -> None:
    assert refusal(own / "nowhere").startswith(
        f"{own}/nowhere/imagenet/val is missing or has no class folders"
    )
    shutil.rmtree(own / "imagenet/val")
    (own / "imagenet/val").mkdir()
    (own / "imagenet/val/ILSVRC2012_val_00000001.JPEG").write_bytes(jpeg())
    said = refusal(own)
    assert said.startswith(f"{own}/imagenet/val is missing or has no class folders")
    assert (
        f"{own}/imagenet/train/CLASS/*.JPEG and {own}/imagenet/val/CLASS/*.JPEG" in said and "--data" in said
    )
    assert len(find(own, "train")) == COUNT
    with pytest.raises(SuiteError, match="imagenet/val is missing or has no class folders"):
        verify.check(own)


def test_classes_that_do_not_match_or_are_empty_are_named(own: Path) -> None:
    (own / "imagenet/val/n0d").mkdir()
    (own / "imagenet/val/n0e").mkdir()
    assert f"{own}/imagenet/val has 2 classes that {own}/imagenet/train lacks, first n0d" in refusal(own)
    for name in "de":
        (own / f"imagenet/train/n0{name}").mkdir()
    assert refusal(own).startswith(f"{own}/imagenet/val/n0d has no images")
    assert refusal(own, "train").startswith(f"{own}/imagenet/train/n0d has no images")


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
