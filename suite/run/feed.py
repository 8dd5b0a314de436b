"""What the steps of a recipe get in a run: the network that its float stage left, and that stage's images."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from suite import networks
from suite.data.images import drawn
from suite.ranges.histogram import Histograms
from suite.recipe import Calibration, Pretrained, Recipe, Sgd, Training
from suite.recipe.method import Step
from suite.run import failures, layer_report
from suite.run.attempt import Attempt
from suite.run.float_stage import crops, load_float, load_trained, observed, views
from suite.run.step_changes import StepChanges
from suite.run.training import score_start, train
from suite.train.distillation import Renormalized
from suite.train.fit import Loss
from suite.train.oscillation import OscillationControl

COUNTS_OF_A_STEP = 1_000_000_000
"""The saved states of a run are numbered; each step has so many numbers, so that those of a later step are newer."""


class RunFeed:
    """The Feed (suite.recipe.method) of one attempt at a recipe."""

    def __init__(self, attempt: Attempt, recipe: Recipe, steps: Sequence[Step]) -> None:
        """Load the network. Raises SuiteError where the float stage's file is missing or was changed."""
        self.attempt, self.recipe, self.steps = attempt, recipe, steps
        self.reference = (
            self.untrained()
            if recipe.from_scratch
            else attempt.place(load_float(recipe.start, attempt.folders))
        )
        self._float = self.reference
        self._begun: nn.Module | None = None
        self.epochs = 0
        """How many the model was trained for, by all steps."""
        self.weights: layer_report.Weights = {}
        """The last float weights, by layer, on rank 0."""
        self.changes = StepChanges(self.reference)
        """What each step changed in each layer, on rank 0."""
        self.ended: dict[int, dict[str, Any]] = {}
        """The last state of each step that took long, by its number."""
        self.learned: dict[int, dict[str, Any]] = {}
        """What each step that ends with `save` learned, by its number, so that `export` need not learn it again."""
        self._step, self._is_loaded = 0, False
        self._saved: dict[str, Any] | None = None

    def begin(self, step: int) -> None:
        """The step of this number begins."""
        self._step = step

    def applied(self, step: Step, model: nn.Module) -> None:
        """Compare its layers with those before, on rank 0."""
        with failures.survived("what a step changed"):
            if self.attempt.journal.writes:
                self.changes.applied(step, model)

    def untrained(self) -> nn.Module:
        """The network as it was when its training began."""
        torch.manual_seed(self.recipe.seed)
        return self.attempt.place(networks.build(self.recipe.start.network))

    def start_network(self) -> nn.Module:
        """The network that the steps are applied to: the float one or, where the recipe continues a training, that
        with its weights."""
        if self.recipe.continues is None:
            return self.reference
        if self._begun is None:
            self._begun = self.attempt.place(load_trained(self.recipe.continues, self.attempt.folders))
        return self._begun

    def teacher(self, stage: Training | Pretrained | None) -> nn.Module:
        """The float network that `stage` left, for images as those of this recipe; None is this recipe's own."""
        if stage is None:
            return self.reference
        network, given = load_float(stage, self.attempt.folders), self.recipe.start.dataset
        if (stage.dataset.mean, stage.dataset.std) != (given.mean, given.std):
            network = Renormalized(network, given, stage.dataset)
        return self.attempt.place(network)

    def batches(self, calibration: Calibration) -> Iterator[Tensor]:
        """The images that `calibration` draws, normalized, the same on every rank."""
        images = self.attempt.images(self.recipe.start.dataset, "train")
        for number, x in enumerate(images.calibration_batches(calibration), start=1):
            yield x
            if self.attempt.ranks.world_size == 1:  # several would stop at different steps
                self.attempt.stop_if_asked()
            self.attempt.journal.progress("calibrate", number * calibration.batch / (2 * calibration.images))

    def labelled(self, calibration: Calibration) -> Iterator[tuple[Tensor, Tensor]]:
        """The images that `calibration` draws, with their labels."""
        whole = self.attempt.images(self.recipe.start.dataset, "train").labels
        labels = whole[drawn(calibration, len(whole)).to(whole.device)]
        parts = torch.split(labels, calibration.batch)
        for x, y in zip(self.batches(calibration), parts, strict=True):
            yield x, y.to(x.device)

    def crops(self, calibration: Calibration) -> Iterator[Tensor]:
        """As many of them, as a training sees them."""
        return crops(self.recipe, self.attempt.images(self.recipe.start.dataset, "train"), calibration)

    def views(self, calibration: Calibration, count: int) -> Iterator[Tensor]:
        """The images that `calibration` draws, `count` times, as a training sees them."""
        return views(self.recipe, self.attempt.images(self.recipe.start.dataset, "train"), calibration, count)

    def histograms(self, calibration: Calibration) -> Histograms:
        """Those of the inputs of the layers of the network that is quantized, the float one or that of the training
        which the recipe continues; kept in its run directory, for all that start from it."""
        digest = self.attempt.images(self.recipe.start.dataset, "train").digest
        network, before = self.reference, self.recipe.continues or self.recipe.start
        if network is self._float:  # no step has put another in its place
            network = self.start_network()
        folder = self.attempt.folders.runs / before.key
        seen, shared = observed(network, self.batches(calibration), calibration, digest, folder)
        self.attempt.journal.write("observed", images=calibration.images, shared=shared)
        return seen

    def train(
        self, model: nn.Module, sgd: Sgd, loss: Loss | None = None, control: OscillationControl | None = None
    ) -> None:
        """Train over the ranks of this run; where an earlier attempt stopped, from there. What is trained first is
        scored as it is without training, where it has all it needs for that."""
        float_stage, seed, state = self.recipe.start, self.recipe.seed, self.saved()
        if not self.epochs:  # the first training of the recipe
            crops = self.crops(self.recipe.method.calibrates_on or Calibration())
            score_start(self.attempt, model, float_stage, crops, is_new=state is None)
        torch.manual_seed(seed)
        last = train(
            self.attempt,
            model,
            float_stage,
            sgd,
            seed,
            state,
            saved_as=self._with_step,
            count_from=self._step * COUNTS_OF_A_STEP,
            loss=loss,
            control=control,
        )
        self.epochs += sgd.epochs
        self._keep_end(last.state)
        self.attempt.last_step_at = math.inf

    def saved(self) -> dict[str, Any] | None:
        """What an earlier attempt saved of the present step."""
        if not self._is_loaded:
            self._saved, self._is_loaded = self.attempt.saved(), True
        if self._saved is None:
            return None
        pipeline = self._saved.get("pipeline", {"step": self._step, "ended": {}})
        if pipeline["step"] == self._step:
            return self._saved
        ended: dict[str, Any] | None = pipeline["ended"].get(self._step)
        if ended is not None:
            self.ended[self._step] = ended
        return ended

    def save(self, state: Callable[[], dict[str, Any]], part: float, doing: str = "") -> None:
        """Save it where that is due, record the progress, and stop where that was asked for."""
        if part == 1:
            self.learned[self._step] = copy.deepcopy(state())
            self._keep_end(state)
            return
        name = type(self.steps[self._step]).__name__
        self.attempt.save_or_stop(
            self._step * COUNTS_OF_A_STEP + math.ceil(part * 1e6),
            f"{part:.0%} of {name}",
            lambda: self._with_step({"epoch": 0, "batches": 0, **state()}),
            lambda: self.attempt.journal.progress(doing or name, part),
        )

    def _keep_end(self, state: Callable[[], dict[str, Any]]) -> None:
        """For the states of later steps, which hold those of all before them; a copy, since these change the model."""
        if any(step.takes_long for step in self.steps[self._step + 1 :]):
            self.ended[self._step] = copy.deepcopy(state())

    def _with_step(self, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "pipeline": {"step": self._step, "ended": self.ended}}

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep it as an artifact of the run."""
        self.attempt.journal.artifact(name, json.dumps(content, indent=1, allow_nan=False).encode())

    def measured(self, **values: float) -> None:
        """Record them at step 0, before any epoch."""
        self.attempt.journal.metrics(0, **values)

    def before_rounding(self, model: nn.Module) -> None:
        """Remember the last float weights."""
        self.attempt.last_step_at = math.inf
        with failures.survived("the float weights"):
            if self.attempt.journal.writes:
                self.weights = layer_report.float_weights(self.reference, model)
