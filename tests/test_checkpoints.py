"""The checkpoint of the repository is what its card says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from suite.networks.channels_last import channels_last
from suite.ranks import Ranks
from suite.recipe import Pretrained, plan
from suite.record.files import Folders, sha256
from suite.run.float_stage import images_of, load_float
from suite.sweeps import find, resnet50
from suite.train.evaluate import Score, evaluate

CARD = resnet50.CHECKPOINT.with_suffix(".md").read_text()


def top1(folder: Path, every: int) -> float:
    """Of each `every`-th test image, in percent."""
    start = find("resnet50").stages([])[0][0].start
    assert isinstance(start, Pretrained)
    folders = Folders(folder / "no-runs", folder)
    images = images_of(start, "test", folders)
    some = replace(images, pixels=images.pixels[::every], labels=images.labels[::every])
    *_, score = evaluate(channels_last(load_float(start, folders)), some, Ranks(), batch=250)
    assert isinstance(score, Score)
    return score.top1


def stated() -> float:
    [found] = re.findall(r"^([\d.]+) % top-1", CARD, re.M)
    return float(found)


def test_the_file_and_the_trainings_are_those_of_its_card() -> None:
    assert sha256(resnet50.CHECKPOINT) in CARD and resnet50.CHECKPOINT.stat().st_size <= 50 * 2**20
    keys = [stage.key for stage in plan([resnet50.training(seed=0)])]
    assert len(keys) == 3 and all(f"key `{key}`" in CARD for key in keys)


def test_some_images_are_answered_as_well_as_its_card_says_of_all(cifar10_folder: Path) -> None:
    assert top1(cifar10_folder, every=25) == pytest.approx(stated(), abs=5)  # 4 standard errors of 400 images


@pytest.mark.long
def test_all_images_give_the_accuracy_of_its_card(cifar10_folder: Path) -> None:
    assert top1(cifar10_folder, every=1) == pytest.approx(stated(), abs=0.021)  # kernels round differently
