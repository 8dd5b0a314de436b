"""suite.quantize(): a method applied to any network, on images in memory: the steps of a run, without its records."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from suite.data.images import drawn, epoch_generator
from suite.networks.own_forward import by_its_modules
from suite.quantizers.layers import LAYERS
from suite.ranges.histogram import Histograms, observe
from suite.ranks import Ranks
from suite.recipe import Calibration, Method, Sgd, Stage
from suite.recipe.errors import SuiteError
from suite.recipe.method import Step
from suite.recipe.words import counted
from suite.run.pipeline import quantized
from suite.train.fit import Loss, fit
from suite.train.oscillation import OscillationControl
from suite.train.tally import DivergedError

Images = Tensor | Iterable[Tensor | tuple[Tensor, Tensor]]


def quantize(
    network: nn.Module,
    method: Method,
    images: Images | None = None,
    labels: Tensor | None = None,
    *,
    untrained: nn.Module | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
) -> nn.Module:
    """A copy of `network` quantized by `method`, in evaluation mode, on the network's device.

    images: float32 [n, channels, height, width], normalized as the network expects them; or batches of them, as a
    DataLoader gives them, of which a calibration takes the first. Not needed where the method needs none.
    labels: int64 [n], for a method that trains; batches may be pairs (images, labels) instead. A training shuffles by
    `seed`, and neither crops nor mirrors.
    untrained: the network before its training, for a method that begins there.
    teacher: for distillation, any network for the same images, on the same device, in the place of `network`.

    Raises SuiteError where the method needs what is not given, for fewer images than its calibration wants, and where
    a weight or an activation is inf or NaN.
    """
    steps = method.steps()
    for step in steps:
        step.check()
    model = quantized(steps, InMemoryFeed(network, images, labels, untrained, seed, teacher))
    return model.eval()


class InMemoryFeed:
    """The Feed (suite.recipe.method) of `quantize`."""

    def __init__(
        self,
        network: nn.Module,
        images: Images | None = None,
        labels: Tensor | None = None,
        untrained: nn.Module | None = None,
        seed: int = 0,
        teacher: nn.Module | None = None,
    ) -> None:
        self.reference = by_its_modules(copy.deepcopy(network)).eval()
        self.device = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.images, self.labels, self.seed = images, labels, seed
        self._untrained, self._teacher = untrained, teacher

    def begin(self, step: int) -> None:
        """Nothing is saved."""

    def applied(self, step: Step, model: nn.Module) -> None:
        """Nothing is recorded."""

    def untrained(self) -> nn.Module:
        """A copy of the one that was given."""
        if self._untrained is None:
            raise SuiteError(
                "the method starts from an untrained network; give it with quantize(..., untrained=network)"
            )
        return copy.deepcopy(self._untrained).to(self.device)

    def teacher(self, stage: Stage | None) -> nn.Module:
        """The one that was given, else the network itself."""
        if self._teacher is None and stage is not None:
            raise SuiteError(
                f"the teacher {stage.name} is a stage of a sweep; give quantize() the network itself with teacher="
            )
        return self.reference if self._teacher is None else self._teacher

    def batches(self, calibration: Calibration) -> Iterator[Tensor]:
        """The images that `calibration` draws of a tensor, or the first of given batches."""
        if self.images is None:
            raise SuiteError(
                "the method calibrates on images; give them with quantize(network, method, images)"
            )
        if isinstance(self.images, Tensor):
            for part in torch.split(drawn(calibration, len(self.images)), calibration.batch):
                yield self.images[part.to(self.images.device)].to(self.device)
            return
        for x, _ in self._first(calibration):
            yield x

    def _first(self, calibration: Calibration) -> Iterator[tuple[Tensor, Tensor | None]]:
        """As many images of the batches, with their labels."""
        left = calibration.images
        for x, y in _pairs(self.images or ()):
            yield x[:left].to(self.device), None if y is None else y[:left]
            left -= len(x)
            if left <= 0:
                return
        have = calibration.images - left
        raise SuiteError(
            f"calibration wants {counted(calibration.images, 'image')}, but the batches have only {have}"
        )

    def labelled(self, calibration: Calibration) -> Iterator[tuple[Tensor, Tensor]]:
        """The images that `calibration` draws, with the labels that were given."""
        missing = SuiteError("the method measures a loss; give quantize() images with labels")
        if self.images is None or (isinstance(self.images, Tensor) and self.labels is None):
            raise missing
        if isinstance(self.images, Tensor):
            assert self.labels is not None
            order = drawn(calibration, len(self.labels)).to(self.labels.device)
            labels = torch.split(self.labels[order], calibration.batch)
            yield from (
                (x, y.to(self.device)) for x, y in zip(self.batches(calibration), labels, strict=True)
            )
            return
        for x, y in self._first(calibration):
            if y is None:
                raise missing
            yield x, y.to(self.device)

    def crops(self, calibration: Calibration) -> Iterator[Tensor]:
        """The same images: they are not cropped here."""
        return self.batches(calibration)

    def views(self, calibration: Calibration, count: int) -> Iterator[Tensor]:
        """Not here: how to augment is known of a data set, not of images."""
        raise SuiteError(
            "quantize() does not crop images: give augmented ones, and a Reconstruct without views"
        )

    def histograms(self, calibration: Calibration) -> Histograms:
        """Those of the inputs of the network's layers."""
        return observe(self.reference, self.batches(calibration), LAYERS)

    def train(
        self, model: nn.Module, sgd: Sgd, loss: Loss | None = None, control: OscillationControl | None = None
    ) -> None:
        """Train on all images, on one rank. Raises SuiteError for a training of several, without images with labels,
        and, as DivergedError, where the loss or a weight becomes inf or NaN."""
        Ranks().check(sgd.world_size)
        torch.manual_seed(self.seed)
        with torch.enable_grad():
            images: Any = self._training_images()
            for step in fit(model, images, sgd, self.seed, Ranks(), loss=loss, control=control):
                if step.epoch_ended:
                    step.read()
        for name, value in model.named_parameters():  # of the last step, which no loss has seen
            if not value.isfinite().all():
                raise DivergedError(f"{name} became inf or NaN in the training; lower the learning rate")

    def _training_images(self) -> Labelled:
        """All that were given, with their labels. Raises SuiteError where there are none."""
        if isinstance(self.images, Tensor) and self.labels is not None:
            return Labelled(self.images.to(self.device), self.labels.to(self.device))
        pairs = [] if self.images is None or isinstance(self.images, Tensor) else list(_pairs(self.images))
        if not pairs or any(y is None for _, y in pairs):
            raise SuiteError("the method trains; give quantize() images with labels")
        images, labels = (torch.cat(list(part)) for part in zip(*pairs, strict=True))
        return Labelled(images.to(self.device), labels.to(self.device))

    def saved(self) -> dict[str, Any] | None:
        """Nothing is."""
        return None

    def save(self, state: Callable[[], dict[str, Any]], part: float, doing: str = "") -> None:
        """Nothing is."""

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        """Nothing is kept."""

    def measured(self, **values: float) -> None:
        """Nothing is recorded."""

    def before_rounding(self, model: nn.Module) -> None:
        """Nothing is reported."""


class Labelled:
    """Images, float32 [n, channels, height, width], with labels, int64 [n], in batches as fit() takes them: shuffled,
    not augmented. Raises SuiteError where they are not equally many."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) != len(labels):
            raise SuiteError(
                f"got {counted(len(images), 'image')} and {counted(len(labels), 'label')}; give one label an image"
            )
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def train_batches(
        self, sgd: Sgd, seed: int, epoch: int, ranks: Ranks, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of each batch of an epoch from the `first` on."""
        generator = epoch_generator(seed, epoch)
        order = torch.randperm(len(self), generator=generator).to(self.images.device)
        for part in islice(torch.split(order, sgd.batch), first, None):
            yield self.images[part], self.labels[part]


def _pairs(batches: Iterable[Tensor | tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor | None]]:
    for batch in batches:
        yield (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1])
