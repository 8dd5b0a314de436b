"""A user's images in class folders: read at their side, and named where one is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.image_files import picture
from PIL import Image

from suite.data import datasets
from suite.data.complete import check_data, completed
from suite.data.image_folder import Streamed
from suite.methods.amax import Amax
from suite.networks.torchvision_import import torchvision
from suite.ranks import Ranks
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Stage, Training
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import read_outcome
from suite.run.stage import run

CPU = torch.device("cpu")


SGD = Sgd(1, 32, 0.05, pad=1, precision=Precision("O0"))


def training(dataset: Dataset, network: Network | None = None, **changes: Any) -> Training:
    return Training(network or Network("resnet20"), dataset, replace(SGD, **changes))


def one(stage: Stage, folder: Path) -> Any:
    [done] = completed([stage], folder)
    return done


def class_folders(folder: Path, side: int = 16) -> Path:
    """own/train and own/test of classes ant and bee: 12 and 4 images of one size, of several modes and endings."""
    for split, count in (("train", 12), ("test", 4)):
        for number in range(count):
            place = folder / "own" / split / ("ant", "bee")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            image = picture(number).resize((side, side))
            mode, ending = [("RGB", "png"), ("L", "PNG"), ("CMYK", "JPG"), ("RGB", "jpeg")][number % 4]
            image.convert(mode).save(place / f"{number:02d}.{ending}")
    return folder


def test_class_folders_of_squares_are_read_at_their_side_and_evaluated_whole(tmp_path: Path) -> None:
    done = one(training(Dataset("own")), class_folders(tmp_path))
    assert (done.dataset.size, done.network.classes) == (16, 2)
    test = datasets.load(done.dataset, "test", tmp_path, CPU)
    assert isinstance(test, Streamed) and test.names == ("ant", "bee") and len(test) == 4
    x, labels = next(iter(replace(test, workers=0).share(Ranks(), 4)))
    assert labels.tolist() == [0, 0, 1, 1]
    first = np.asarray(Image.open(tmp_path / "own/test/ant/00.png").convert("RGB"))
    shown = x[0].permute(1, 2, 0) * torch.tensor(done.dataset.std) + torch.tensor(done.dataset.mean)
    assert (shown * 255 - torch.from_numpy(first.copy())).abs().max() < 0.01


def test_hidden_files_and_broken_links_are_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = class_folders(tmp_path) / "own/train/ant"
    (place / "._00.png").write_bytes(b"of another system")
    (place / "gone.png").symlink_to("nowhere.png")
    (place / "notes.txt").write_text("no image")
    (place.parent / ".ipynb_checkpoints").mkdir()
    train = datasets.load(Dataset("own"), "train", tmp_path, CPU)
    assert isinstance(train, Streamed) and len(train) == 12 and train.skipped == 2
    check_data([one(training(Dataset("own")), tmp_path)], tmp_path)
    shown = (
        f"{tmp_path}/own/train: 12 images; left out: 2 hidden or empty files or broken links, 1 file .txt\n"
    )
    assert capsys.readouterr().out == shown


def test_a_class_folder_without_images_and_a_missing_split_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "own/train/cat").mkdir()
    (tmp_path / "own/train/cat/notes.txt").write_text("")
    with pytest.raises(
        SuiteError,
        match="own/train/cat has no images that end with .jpg, .*, but 1 file .txt; copy them there, or remove",
    ):
        completed([training(Dataset("own"))], tmp_path)
    (tmp_path / "half/train/a").mkdir(parents=True)
    picture(0).save(tmp_path / "half/train/a/0.png")
    done = completed([training(Dataset("half"), Network("resnet20", classes=2))], tmp_path)
    with pytest.raises(
        SuiteError,
        match="half/val is missing or has no class folders; the images of half must lie .* or test .*; there is train",
    ):
        check_data(done, tmp_path)


def test_an_image_turned_by_its_exif_is_set_upright_and_sixteen_bits_become_eight(tmp_path: Path) -> None:
    class_folders(tmp_path)
    ramp = np.tile(np.linspace(0, 65_535, 16, dtype=np.uint16), (16, 1))
    place = tmp_path / "own/test/ant"
    for file in place.iterdir():
        file.unlink()
    Image.fromarray(ramp).save(place / "0-deep.png")
    grey = Image.fromarray((ramp // 256).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    grey.save(place / "1-turned.png", exif=exif)
    test = datasets.load(Dataset("own", (0.0,) * 3, (1.0,) * 3, 16), "test", tmp_path, CPU)
    assert isinstance(test, Streamed)
    x, _ = next(iter(replace(test, workers=0).share(Ranks(), 2)))
    expected = torch.from_numpy(ramp // 256).float() / 255
    torch.testing.assert_close(x[0], expected.expand(3, -1, -1), atol=1e-6, rtol=0)
    assert torch.equal(x[1, 0], x[0, 0].rot90(-1)) and not torch.equal(x[1, 0], x[0, 0])


@pytest.mark.parametrize("crop", ["padded", "resized"])
def test_a_training_and_a_calibration_run_from_class_folders(tmp_path: Path, crop: str) -> None:
    stage = training(Dataset("own"), Network("resnet20"), crop=crop, batch=6)
    [recipe] = completed([Recipe(stage, Amax(feed=Calibration(8, 4)))], class_folders(tmp_path))
    check_data([recipe], tmp_path)
    for each in (*recipe.needs, recipe):
        run(each, Ranks(), Folders(tmp_path / "runs", tmp_path))
        outcome = read_outcome(tmp_path / "runs" / each.key)
        assert outcome is not None and outcome["images"] == 4


def test_folders_within_a_class_are_read_as_torchvisions_image_folder_reads_them(tmp_path: Path) -> None:
    place = class_folders(tmp_path) / "own/train"
    for within in ("bee/b/deeper", "bee/a", "ant/z"):
        (place / within).mkdir(parents=True)
        picture(1).save(place / within / "1.png")
        picture(2).save(place / within / "0.jpg")
    samples = torchvision.datasets.ImageFolder(str(place)).samples
    train = datasets.load(Dataset("own"), "train", tmp_path, CPU)
    assert isinstance(train, Streamed) and len(train) == 18
    assert [str(train.folder / file) for file in train.files] == [file for file, _ in samples]
    assert train.labels.tolist() == [label for _, label in samples]
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        (place / "ant" / hidden).mkdir()
        picture(3).save(place / "ant" / hidden / "0.png")
    (place / "ant" / "round").symlink_to(place / "ant")
    datasets.load.cache_clear()
    again = datasets.load(Dataset("own"), "train", tmp_path, CPU)
    assert isinstance(again, Streamed) and again.files == train.files


def test_hidden_folders_and_files_are_left_out_of_imagenet_too(tmp_path: Path) -> None:
    place = class_folders(tmp_path).joinpath("own").rename(tmp_path / "imagenet")
    (place / "train/ant/._00.png").write_bytes(b"of another system")
    (place / "train/__MACOSX").mkdir()
    train = datasets.load(Dataset("imagenet"), "train", tmp_path, CPU)
    assert isinstance(train, Streamed) and len(train) == 12 and not any("._" in file for file in train.files)


@pytest.mark.parametrize("classes", [2, 4])
def test_class_folders_that_are_not_as_many_as_the_networks_classes_are_refused(
    tmp_path: Path, classes: int
) -> None:
    dataset = Dataset("own", (0.5,) * 3, (0.5,) * 3, 16)
    for split in ("train", "test"):
        (class_folders(tmp_path) / "own" / split / "cat").mkdir()
        picture(0).save(tmp_path / "own" / split / "cat/0.png")
    with pytest.raises(SuiteError, match=f"are of 3 classes, and the network has {classes}; leave Network's"):
        check_data([training(dataset, Network("resnet20", classes=classes))], tmp_path)


def test_a_file_that_is_no_image_is_named_when_the_sweep_is_planned(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "own/train/ant/00.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(
        SuiteError, match=r"own/train/ant/.*00.png is no image: .*; fetch it anew, or remove it"
    ):
        one(training(Dataset("own")), tmp_path)
