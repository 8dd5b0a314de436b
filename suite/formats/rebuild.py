"""The network of a finished recipe, made again: its steps, but for the trainings, whose weights the run kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite import networks
from suite.data.image_folder import Streamed
from suite.data.images import Images
from suite.integers.levels import NoIntegersError, integers_of, refused
from suite.networks.channels_last import channels_last
from suite.quantizers.layers import LAYERS
from suite.quantizers.quantizer import Quantizer
from suite.ranges.histogram import Histograms
from suite.recipe import Calibration, Recipe, Sgd, Stage
from suite.recipe.errors import SuiteError
from suite.record.files import Folders
from suite.record.journal import read_events, read_outcome, threads_of
from suite.run import checkpoint
from suite.run.float_stage import crops, images_of, load_float, load_trained, observed, views
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized, steps_of
from suite.train.fit import Loss
from suite.train.oscillation import OscillationControl


@dataclass(frozen=True)
class Rebuilt:
    """`model` as the run evaluated it, on the CPU, evaluating; `outcome` what the run recorded."""

    recipe: Recipe
    model: nn.Module
    outcome: dict[str, Any]
    folders: Folders

    def images(self, split: str) -> Images | Streamed:
        """Those that the run read. Raises SuiteError where there are others now."""
        return images_of(self.recipe, split, self.folders)

    def calibration(self) -> Iterator[Tensor]:
        """Batches of training images: those that the recipe calibrates on, else 512."""
        wanted = self.recipe.method.calibrates_on or Calibration()
        return self.images("train").calibration_batches(wanted)


def rebuilt(stage: Stage, folders: Folders) -> Rebuilt:
    """Raises SuiteError for a stage that is no recipe or not done, and where a file it needs is missing or changed.

    It is made on as many threads as its run: sums are rounded otherwise on another number, by which a network of 3
    bits whose BatchNorm is estimated again answers one image of four otherwise.

    What a recipe such as adaround learned without training is read from its run directory; where that has none, as
    those of older versions, it learns again, which takes as long as its run.
    """
    if not isinstance(stage, Recipe):
        raise SuiteError(
            f"{stage.name} ({stage.key}) is a float network, nothing is quantized in it; export a recipe, or a "
            f"training's weights with --to safetensors"
        )
    outcome = read_outcome(folders.runs / stage.key)
    if outcome is None:
        raise SuiteError(f"{stage.name} ({stage.key}) is not done yet; run it first: suite run {stage.key}")
    for step in steps_of(stage):
        step.check()
    with _threads(threads_of(read_events(folders.runs / stage.key))):
        model = quantized(steps_of(stage), StageFeed(stage, folders)).eval()
    if "checkpoint" in outcome:
        _load(model, outcome["checkpoint"], folders.runs / stage.key)
    return Rebuilt(stage, model, outcome, folders)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch compute on this many threads within, None: as many as it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load(model: nn.Module, saved: dict[str, Any], folder: Path) -> None:
    state = checkpoint.load(folder / Path(saved["file"]).name, saved["sha256"])
    try:
        model.load_state_dict(state["model"])
    except (RuntimeError, KeyError) as error:
        raise SuiteError(
            f"{folder / saved['file']} does not fit the network that its recipe makes now: {error}; the code changed "
            f"since the run: launch the sweep again"
        ) from error


def check_on_grids(source: Rebuilt) -> None:
    """Raise NoIntegersError, naming them, for layers whose levels are no grid, and for a network without any."""
    if reasons := refused(source.model):
        named = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:5])
        more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise NoIntegersError(
            f"{source.recipe.name} cannot be exported, since the levels of {len(reasons)} of its layers are no "
            f"integers times a scale: {named}{more}; export a recipe of evenly spaced levels, such as mse or lsq"
        )
    modules = list(source.model.modules())
    rounded = any(isinstance(one, LAYERS) and integers_of(one) is not None for one in modules)
    if not rounded and not any(isinstance(one, Quantizer) for one in modules):
        raise NoIntegersError(
            f"{source.recipe.name} rounds no weight and no input; there is nothing to export"
        )


class StageFeed(InMemoryFeed):
    """The Feed (suite.recipe.method) of a recipe whose network is made again."""

    def __init__(self, recipe: Recipe, folders: Folders) -> None:
        self.recipe, self.folders, self._step = recipe, folders, 0
        self._learned = checkpoint.load_kept(folders.runs / recipe.key, checkpoint.LEARNED) or {}
        super().__init__(self._untrained_network() if recipe.from_scratch else self._float())
        self._given = self.reference

    def begin(self, step: int) -> None:
        """The step of this number begins."""
        self._step = step

    def saved(self) -> dict[str, Any] | None:
        """What this step of the run had learned at its end."""
        found: dict[str, Any] | None = self._learned.get(str(self._step))
        return found

    def _float(self) -> nn.Module:
        return channels_last(load_float(self.recipe.start, self.folders))

    def _untrained_network(self) -> nn.Module:
        torch.manual_seed(self.recipe.seed)
        return channels_last(networks.build(self.recipe.start.network))

    def _train_images(self) -> Images | Streamed:
        return images_of(self.recipe, "train", self.folders)

    def untrained(self) -> nn.Module:
        """The network as it was when its training began."""
        return self._untrained_network()

    def teacher(self, stage: Stage | None) -> nn.Module:
        """Nobody: nothing is trained."""
        return self.reference

    def batches(self, calibration: Calibration) -> Iterator[Tensor]:
        """The images that `calibration` draws."""
        return self._train_images().calibration_batches(calibration)

    def crops(self, calibration: Calibration) -> Iterator[Tensor]:
        """As a training sees them."""
        return crops(self.recipe, self._train_images(), calibration)

    def views(self, calibration: Calibration, count: int) -> Iterator[Tensor]:
        """As a training sees them, `count` times."""
        return views(self.recipe, self._train_images(), calibration, count)

    def histograms(self, calibration: Calibration) -> Histograms:
        """Those that the run directory of the network which was quantized keeps, where it is there."""
        network, before = self.reference, self.recipe.continues or self.recipe.start
        if self.recipe.continues and network is self._given:
            network = channels_last(load_trained(self.recipe.continues, self.folders))
        folder = self.folders.runs / before.key
        if not folder.is_dir():
            return super().histograms(calibration)
        digest = self._train_images().digest
        return observed(network, self.batches(calibration), calibration, digest, folder)[0]

    def train(
        self, model: nn.Module, sgd: Sgd, loss: Loss | None = None, control: OscillationControl | None = None
    ) -> None:
        """No training: what was learned is loaded afterwards. One batch is seen, so that every range is one."""
        model.train()
        with torch.no_grad():
            for x in self.batches(Calibration(images=64, batch=64)):
                model(x)
