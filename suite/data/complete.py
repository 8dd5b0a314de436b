"""What stages leave to the data: normalization, size and number of classes; and whether the data is as they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from suite.recipe import Dataset, Pretrained, Recipe, Sgd, Stage, Training, plan
from suite.recipe.errors import SuiteError
from suite.recipe.planning import float_stage_of
from suite.recipe.serialize import replaced
from suite.recipe.words import counted

if TYPE_CHECKING:
    from suite.data.image_folder import Streamed


def completed(stages: Iterable[Stage], folder: Path) -> list[Stage]:
    """The stages with what they leave open taken from the training images in the data `folder`.

    It is in their keys from then on. Raises SuiteError where the data is needed for that and missing or unusable.
    """
    known = cache(_of_training_images)  # of one data set only once
    return [_completed(stage, folder, known) for stage in stages]


Known = Callable[[Dataset, Path], tuple[Dataset, int]]


def _of_training_images(dataset: Dataset, folder: Path) -> tuple[Dataset, int]:
    from suite.data import datasets  # which waits for torch

    return datasets.of_training_images(dataset, folder)


def _completed(stage: Stage, folder: Path, known: Known) -> Stage:
    if isinstance(stage, Recipe):
        completed: Recipe = replaced(stage, (Training, Pretrained), lambda s: _completed(s, folder, known))
        return completed
    if not isinstance(stage, (Training, Pretrained)) or (stage.dataset.is_complete and stage.network.classes):
        return stage
    dataset, classes = known(stage.dataset, folder)
    network = replace(stage.network, classes=stage.network.classes or classes)
    return replace(stage, network=network, dataset=dataset)


def check_data(stages: Iterable[Stage], folder: Path) -> None:
    """Raise SuiteError unless both splits of each stage's data set are there and whole, have labels that its network
    knows, images enough to calibrate on, and the crops that it trains with."""
    import torch

    from suite.data import datasets
    from suite.data.image_folder import Streamed
    from suite.networks.network_check import check_takes_one

    reported = set[Path]()
    for stage in plan(stages):
        start = float_stage_of(stage)
        train, test = (
            datasets.load(start.dataset, name, folder, torch.device("cpu")) for name in ("train", "test")
        )
        for split in (train, test):
            if isinstance(split, Streamed) and split.is_own and split.folder not in reported:
                reported.add(split.folder)
                _print_what_is_left_out(split)
        most = 1 + max(int(train.labels.max()), int(test.labels.max()))
        wanted = start.network.classes
        # The label of an image in a class folder is the place of that folder among the others: one folder less, and
        # those after it are of other classes than the network takes them for.
        if most > wanted or (isinstance(train, Streamed) and most < wanted):
            raise SuiteError(
                f"{start.name}: the images of {start.dataset.name} are of {counted(most, 'class')}, and the network "
                f"has {wanted}; leave Network's classes out, or give that number"
            )
        calibration = stage.method.calibrates_on if isinstance(stage, Recipe) else None
        if calibration and calibration.images > len(train):
            raise SuiteError(
                f"{stage.name} calibrates on {counted(calibration.images, 'image')}, more than its training split "
                f"has, {len(train)}; give the method a Calibration of fewer"
            )
        if stage.trains_by and stage.trains_by.crop not in train.crops:
            raise SuiteError(
                f"{stage.name}: crop {stage.trains_by.crop!r} is not for images in arrays; use 'padded'"
            )
        if stage.trains_by and (words := _single_image(stage.trains_by, len(train))):
            check_takes_one(start.network, start.dataset, words)
    datasets.load.cache_clear()


def _single_image(sgd: Sgd, images: int) -> str:
    """When BatchNorm gets a single image, or none, in words; empty where it never does."""
    ranks = 1 if sgd.sync_batch_norm else sgd.world_size
    share = f", a rank's share of {ranks}" if ranks > 1 else ""
    last = images % sgd.batch
    if sgd.batch // ranks <= 1 and images >= sgd.batch:
        return f"as with Sgd(batch={sgd.batch}){share}"
    if last and last // ranks <= 1:
        return (
            f"as in the last batch of an epoch, {counted(images, 'image')} in batches of {sgd.batch}{share}"
        )
    return ""


def _print_what_is_left_out(split: Streamed) -> None:
    hidden = f"{split.skipped} hidden or empty files or broken links" if split.skipped else ""
    if left_out := ", ".join(filter(None, (hidden, split.others))):
        print(f"{split.folder}: {counted(len(split), 'image')}; left out: {left_out}", flush=True)
