"""What the float stage of a recipe left for it: its network, its images and the histograms of its layers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from suite import networks
from suite.data import datasets
from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.networks import checkpoint_files
from suite.quantizers.layers import LAYERS
from suite.ranges.histogram import Histograms, observe
from suite.ranks import CPU, Ranks
from suite.recipe import Calibration, Pretrained, Recipe, Sgd, Stage, Training
from suite.recipe.errors import SuiteError
from suite.recipe.planning import float_stage_of
from suite.record import files
from suite.record.files import Folders
from suite.record.journal import images_read, read_events, read_outcome
from suite.run import checkpoint


def crops(recipe: Recipe, images: Images | Streamed, calibration: Calibration) -> Iterator[Tensor]:
    """Batches of as many of the training `images` as `calibration` takes, but as a training sees them, the same on all
    ranks: BatchNorm's statistics are of such, and on CIFAR-10 the black borders of shifted images are a part of them.
    """
    batches = images.train_batches(_augmentation(recipe, calibration), calibration.seed, 1, Ranks())
    for x, _ in islice(batches, -(-calibration.images // calibration.batch)):
        yield x


def views(
    recipe: Recipe, images: Images | Streamed, calibration: Calibration, count: int
) -> Iterator[Tensor]:
    """Images.views, augmented as the recipe trains. Raises SuiteError for images that are read from a folder."""
    if not isinstance(images, Images):
        raise SuiteError(
            "views of calibration images need a data set in memory; use a Reconstruct without views"
        )
    return images.views(_augmentation(recipe, calibration), calibration, count)


def _augmentation(recipe: Recipe, calibration: Calibration) -> Sgd:
    """How the recipe's method trains, else its float network; of a checkpoint what is usual. In batches of the
    calibration."""
    trained = recipe.trains_by or (recipe.start.sgd if isinstance(recipe.start, Training) else None)
    usual = Sgd(1, 1, 1.0, crop="resized" if recipe.start.dataset.name == "imagenet" else "padded")
    return replace(trained or usual, batch=calibration.batch, world_size=1, image_sizes=())


def observed(
    network: nn.Module, batches: Iterable[Tensor], calibration: Calibration, digest: str, folder: Path
) -> tuple[Histograms, bool]:
    """What the layers of the float `network` see on the images that `calibration` draws; whether it was there before.

    It is observed once for all that start from the network, in whose run directory `folder` it stays under a name that
    names what it was made from; `digest` is the data's. The size of the `batches` does not matter to it. It is on the
    CPU, so that the ranges are the same for all.
    """
    whole = hashlib.sha256(digest.encode())
    for tensor in network.state_dict().values():
        whole.update(tensor.detach().cpu().numpy().tobytes())
    name = f"observed-{calibration.images}-seed{calibration.seed}-{whole.hexdigest()[:16]}"
    state = checkpoint.load_kept(folder, name)
    if shared := state is not None:
        return Histograms.from_state(state), shared
    seen = observe(network, batches, LAYERS)
    seen = replace(seen, counts=seen.counts.cpu(), low=seen.low.cpu(), high=seen.high.cpu())
    checkpoint.keep(seen.state(), folder, name)
    return seen, shared


def load_float(float_stage: Training | Pretrained, folders: Folders) -> nn.Module:
    """The network that `float_stage` left, on the CPU. Raises SuiteError where its file is missing or changed."""
    if isinstance(float_stage, Pretrained):
        file = Path(float_stage.file)
        if not file.is_file() or files.sha256(file) != float_stage.sha256:
            raise SuiteError(
                f"{file} is not the checkpoint of sha256 {float_stage.sha256[:16]} that was planned; launch the sweep "
                f"again"
            )
        return checkpoint_files.load_weights(float_stage.network, file)
    model = networks.build(float_stage.network)
    model.load_state_dict(_saved(float_stage, folders)["model"])
    return model


def images_of(stage: Stage, split: str, folders: Folders) -> Images | Streamed:
    """A split of the data set of a finished stage, on the CPU. Raises SuiteError where its run, or that of its float
    stage, read other images than are in the data folder now."""
    dataset = float_stage_of(stage).dataset
    images = datasets.load(dataset, split, folders.data, CPU)
    events = [read_events(folders.runs / one.key) for one in (stage, *stage.needs[:1])]
    if {images_read(journal).get(split) for journal in events} - {images.digest, None, ""}:
        raise SuiteError(
            f"the {split} images of {dataset.name} in {folders.data} are not those that {stage.name} ({stage.key}) "
            f"read; name the folder of those with --data"
        )
    return images


def load_trained(recipe: Recipe, folders: Folders) -> nn.Module:
    """The float network with the weights and BatchNorm that a finished training of a recipe ended with, on the CPU;
    the weights as they were before they were rounded for good. Raises SuiteError where they are missing or changed."""
    state = _saved(recipe, folders)
    if "trained" not in state:
        raise SuiteError(
            f"{recipe.name} ({recipe.key}) was run by a version that did not keep the weights before rounding; remove "
            f"its run directory and launch the sweep again"
        )
    model = networks.build(recipe.start.network)
    own = {f"{layer}.weight": weight for layer, weight in state["trained"].items()}
    for name in model.state_dict().keys() - own.keys():
        module, _, leaf = name.rpartition(".")
        held = f"{module}.layer.{leaf}"  # of a layer with quantizers
        own[name] = state["model"][held if held in state["model"] else name]
    model.load_state_dict(own)
    return model


def _saved(stage: Stage, folders: Folders) -> dict[str, Any]:
    """The checkpoint that a finished stage left."""
    folder = folders.runs / stage.key
    record = read_outcome(folder)
    if record is None:
        raise SuiteError(f"{stage.name} ({stage.key}) is not done yet; run it first")
    saved = record["checkpoint"]
    return checkpoint.load(folder / Path(saved["file"]).name, saved["sha256"])
