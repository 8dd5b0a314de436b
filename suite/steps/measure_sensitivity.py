"""What rounding each layer costs, at each width, weights and inputs apart."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from suite.recipe import Calibration
from suite.recipe.errors import SuiteError, check_bits, check_whole
from suite.recipe.method import Feed, Step
from suite.steps.calibrate import RunCalibration, TakeRanges
from suite.steps.insert import Insert
from suite.steps.learned import StartLearning

if TYPE_CHECKING:
    from torch import nn

    from suite.sensitivity.costs import Batches, Rounded

IMAGES = Calibration(images=256, batch=64)
"""Training images that scores are measured on."""

TRUTH = "truth"
"""In a saved state, the losses that were measured so far."""


@dataclass(frozen=True)
class MeasureSensitivity(Step):
    """After Insert, and before the ranges: the scores of suite.sensitivity.costs, and the truth that they stand
    for, as the artifact `sensitivity.json`. The model stays as it is.

    ranges: the steps that give the inserted quantizers their ranges. probes: random vectors for
    every 8 images, for the trace of the Hessian. truth: loss and top-1 too, which takes two evaluations for each
    tensor and width.
    """

    widths: tuple[int, ...] = (2, 3, 4, 8)
    ranges: tuple[Step, ...] = ()
    images: Calibration = field(default_factory=lambda: IMAGES)
    probes: int = 2
    truth: bool = True

    takes_long: ClassVar[bool] = True
    revision: ClassVar[int] = 2
    """1 had another estimator of the Hessian's trace."""

    def __post_init__(self) -> None:
        check_candidates(self.widths)
        check_whole(self, 1, probes=self.probes)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself. Raises SuiteError where no layer has a quantizer, and for images without labels."""
        feed.keep("sensitivity.json", self.measured(model, feed))
        return model

    def measured(self, model: nn.Module, feed: Feed) -> dict[str, Any]:
        """The content of the artifact."""
        from suite.networks.graph import graph_of
        from suite.quantizers.layer_sizes import layer_sizes
        from suite.quantizers.layers import widths_of, without_quantizers
        from suite.sensitivity.correlation import correlations
        from suite.sensitivity.costs import costs, evaluated, with_hessian, with_truth
        from suite.sensitivity.hessian import traces

        known = dict((feed.saved() or {}).get(TRUTH, {}))

        def tick(part: float, doing: str) -> None:
            feed.save(lambda: {TRUTH: dict(known)}, min(part, 0.999), f"sensitivity: {doing}")

        order = graph_of(without_quantizers(model)).reported().layers
        there = widths_of(model)
        names = tuple(name for name in dict.fromkeys((*order, *there)) if name in there)
        rounded = rounded_at(model, self.widths, names, self.ranges, feed)
        batches = list(feed.labelled(self.images))
        found = costs(
            rounded, batches, seed=self.images.seed, tick=lambda part, doing: tick(part / 20, doing)
        )
        covered = tuple(dict.fromkeys(cost.layer for cost in found))
        probed = traces(rounded.network, covered, (x for x, _ in batches), self.probes, self.images.seed)
        found = with_hessian(found, probed)
        if self.truth:
            found = with_truth(
                rounded, found, batches, tick=lambda part, doing: tick(0.1 + 0.9 * part, doing), known=known
            )
        feed.save(lambda: {"epoch": 0, "batches": 0, TRUTH: dict(known)}, 1.0)
        sizes = layer_sizes(rounded.network, names, batches[0][0][:1])
        whole = {bits: evaluated(one, batches) for bits, one in rounded.at.items()}
        return {
            "format": 1,
            "images": sum(len(x) for x, _ in batches),
            "seed": self.images.seed,
            "probes": self.probes,
            "float": asdict(evaluated(rounded.network, batches)),
            "all_rounded": {str(bits): asdict(result) for bits, result in whole.items()},
            "layers": [{"name": name, **asdict(size)} for name, size in sizes.items()],
            "costs": [asdict(cost) for cost in found],
            "correlations": [asdict(one) for one in correlations(found)],
        }


def around_insert(steps: Sequence[Step], name: str) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """(the steps of the method `name` up to the one that inserts its quantizers, those behind it that give them their
    ranges). Raises SuiteError for a method that does not put quantizers on all layers of a trained network, and where
    shortcuts carry rounded values."""
    steps = [step for step in steps if not step.chooses_widths]
    inserts = [(number, step) for number, step in enumerate(steps) if isinstance(step, Insert)]
    at, insert = inserts[0] if len(inserts) == 1 else (0, None)
    if insert is None or not insert.sets_widths or any(step.starts_untrained for step in steps):
        raise SuiteError(
            f"widths by layer are not for {name}, which gives its layers their widths in its own way or starts from "
            f"an untrained network; use a method that puts quantizers on all layers of a trained one"
        )
    if insert.carried == "rounded":
        raise SuiteError(
            f"widths by layer are not for {name} with carried='rounded', where a block's layers and its shortcut have "
            f"one quantizer together; use carried='float'"
        )
    kinds = (TakeRanges, RunCalibration, StartLearning)
    ranges = itertools.takewhile(lambda step: isinstance(step, kinds), steps[at + 1 :])
    return tuple(steps[: at + 1]), tuple(ranges)


def check_candidates(widths: Sequence[int]) -> None:
    """Raise SuiteError unless `widths` are different whole numbers of bits, at least one."""
    for bits in widths:
        check_bits("widths", bits)
    if not widths or len(set(widths)) < len(widths) or not isinstance(widths, tuple):
        raise SuiteError(f"widths must be a tuple of different numbers of bits, got {widths!r}")


def rounded_at(
    model: nn.Module, widths: Sequence[int], names: Sequence[str], ranges: Sequence[Step], feed: Feed
) -> Rounded:
    """What the method makes of the network at each of `widths`, in the layers `names`; `model` has quantizers that
    have seen nothing, and stays so. Raises SuiteError where there is no layer."""
    from suite.quantizers.layers import bake, set_widths, without_quantizers
    from suite.sensitivity.costs import Rounded

    if not names:
        raise SuiteError("the network has no layer with quantizers; sensitivity is measured after Insert")
    at, once = {}, cast(Feed, _ObservedOnce(feed))
    for bits in widths:
        candidate = copy.deepcopy(model)
        set_widths(candidate, dict.fromkeys(names, (bits, bits)))
        for step in ranges:
            candidate = step.apply(candidate, once)
        at[bits] = bake(candidate)
    network = without_quantizers(model)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return Rounded(network, at, names)


class _ObservedOnce:
    """A feed that passes the images through the float network once for all widths."""

    def __init__(self, feed: Feed) -> None:
        self.feed, self.seen = feed, dict[Calibration, Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.feed, name)

    def histograms(self, calibration: Calibration) -> Any:
        if calibration not in self.seen:
            self.seen[calibration] = self.feed.histograms(calibration)
        return self.seen[calibration]


def unlabelled(feed: Feed, images: Calibration) -> Batches:
    """The images with labels that nobody may look at, for scores that need none."""
    import torch

    return [(x, torch.empty(0, dtype=torch.int64)) for x in feed.batches(images)]
