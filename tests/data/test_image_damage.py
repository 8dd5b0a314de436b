"""Damaged image files, and folders that are no data set, are named before a training and in it."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from fakes.image_files import COUNT, CPU, SMALL, epoch, find, picture, write
from PIL import EpsImagePlugin, Image

from suite.data import image_folder, verify
from suite.data.workers import Decoder, Request
from suite.recipe.errors import SuiteError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder to spoil."""
    return write(tmp_path)


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
    assert first.startswith("9 of 38 images damaged; fetch them anew")
    listed = {line.split(": ")[0].strip() for line in named}
    assert listed == {f"{train}/{name}" for name in damage} | {f"{own}/imagenet/val/n0c/gone.JPEG"}
    assert any("empty.JPEG: it is empty" in line for line in named)
    assert not (own / "imagenet.checked.json").exists()


def test_of_many_damaged_images_ten_are_named(own: Path) -> None:
    for number in range(12):
        (own / f"imagenet/train/n0a/{number}.JPEG").write_bytes(b"text")
    with pytest.raises(SuiteError, match="12 of 41 images damaged") as raised:
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
    with pytest.raises(SuiteError, match="1 of 29 images damaged"):
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


def test_no_other_program_decodes_what_is_named_as_an_image(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow has Ghostscript run the program that an EPS file is."""
    ran, place = own / "ran", own / "imagenet/train"
    (own / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (own / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{own}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
    (place / "n0a" / "x.JPEG").write_bytes(header)
    with pytest.raises(SuiteError, match=r"(?s)1 of \d+ images damaged.*x.JPEG: cannot identify"):
        verify.check(own)
    assert "cannot identify image" in str(
        Decoder(place)[Request(["n0a/x.JPEG"], [0], 32, None, False, 3, True)]
    )
    for kind in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "MPO", "PPM", "JPEG2000"):
        picture(0).save(place / "n0a" / "x.JPEG", kind)
        verify._examine(str(place / "n0a" / "x.JPEG"), (place / "n0a" / "x.JPEG").stat().st_size)
        assert not isinstance(Decoder(place)[Request(["n0a/x.JPEG"], [0], 32, None, False, 3, True)], str), (
            kind
        )
    assert not ran.exists()


def test_a_link_to_itself_is_a_broken_one_and_a_fifo_is_waited_for_by_nobody(own: Path) -> None:
    place = own / "imagenet/train/n0a"
    (place / "loop.JPEG").symlink_to("loop.JPEG")
    (place / "folder").symlink_to("folder")
    os.mkfifo(place / "fifo.JPEG")
    with pytest.raises(SuiteError, match="2 of .* images damaged") as refused:
        verify.check(own)
    assert "fifo.JPEG: " in str(refused.value) and "loop.JPEG: " in str(refused.value)
