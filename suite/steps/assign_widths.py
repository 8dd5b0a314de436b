"""Each layer gets a width of its own, so that the network costs least within a budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from suite.recipe import FLOAT_BITS, Calibration
from suite.recipe.errors import SuiteError, check_choice, check_whole
from suite.recipe.method import Feed, Step
from suite.steps.insert import LayerWidths
from suite.steps.measure_sensitivity import IMAGES, check_candidates, rounded_at, unlabelled

if TYPE_CHECKING:
    from torch import nn

    from suite.quantizers.layer_sizes import LayerSize
    from suite.quantizers.sensitivity import Cost
    from suite.quantizers.width_search import Option, Resource

By = Literal["noise", "logits", "gradient", "hessian", "loss", "random", "uniform"]

Widths = dict[str, tuple[int, int]]
"""(weight bits, input bits) by layer; 32 is float."""

Scores = dict[tuple[str, str, int], float]
"""By layer, tensor and bits."""


@dataclass(frozen=True)
class AssignWidths(Step):
    """After Insert, and before the ranges.

    by: the score whose sum is made least, of suite.quantizers.sensitivity, "loss" by the loss with one tensor rounded
    alone; "random" draws widths of the budget by `seed`; "uniform" leaves them as they are.
    widths: those to choose from. apart: weights and inputs of a layer may differ.
    size_bits: the mean bits of a weight, by parameter, at most; bops_per_mac: the mean product of weight and input
    bits by multiplication, at most, which is 16 where both have 4 bits. Both of the layers whose width is free; 0 is
    none.
    first_last, by_layer: as of Insert; these layers keep their widths, and so do those that are tied to them. Layers
    that take one tensor, or are added, are tied: all get the same widths.
    ranges: the steps that give the inserted quantizers their ranges. images: training images of the scores.
    """

    by: By = "noise"
    widths: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    apart: bool = True
    size_bits: float = 4.0
    bops_per_mac: float = 16.0
    first_last: int | None = None
    by_layer: LayerWidths = ()
    ranges: tuple[Step, ...] = ()
    images: Calibration = field(default_factory=lambda: IMAGES)
    probes: int = 2
    seed: int = 0

    takes_long: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("by", self.by, get_args(By))
        check_candidates(self.widths)
        check_whole(self, 1, probes=self.probes)
        if not min(self.size_bits, self.bops_per_mac) >= 0:
            raise SuiteError(f"a budget is a number from 0 on, got {self.size_bits} and {self.bops_per_mac}")
        if self.by not in ("uniform",) and not max(self.size_bits, self.bops_per_mac):
            raise SuiteError("widths need a budget: give size_bits, bops_per_mac or both")

    @property
    def sets_widths(self) -> bool:
        """It keeps what `first_last` says."""
        return True

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself. Keeps `widths.json`: the widths, what they come to, and the scores; and records the metrics
        mean_weight_bits, mean_weight_bits_by_layer, bops and size_mb.

        Raises SuiteError for a budget that no assignment meets, with the least that is possible; where layers that are
        tied have different widths declared; and for a layer that no score covers.
        """
        from suite.networks.graph import graph_of
        from suite.quantizers.layer_sizes import layer_sizes
        from suite.quantizers.layers import set_widths, widths_of, without_quantizers

        network, widths = without_quantizers(model).eval(), widths_of(model)
        graph = graph_of(network).reported()
        tied, order = graph.tied, dict.fromkeys((*graph.layers, *widths))
        present = {name: widths[name] for name in order if name in widths}
        declared = {name: present[name] for name in self._declared(model)}
        kept = dict(present) if self.by == "uniform" else fixed(declared, tied)
        x = next(iter(feed.batches(replace(self.images, images=1, batch=1))))
        sizes = layer_sizes(network, list(present), x)
        groups = free_groups([name for name in present if name not in kept], tied)
        saved = feed.saved() or {}
        scores: Scores = {}
        if groups and self.by != "random":
            scores = dict(saved["scores"]) if "scores" in saved else self._scores(model, feed, groups)
        feed.save(lambda: {"epoch": 0, "batches": 0, "scores": scores}, 1.0)
        widths = present | kept | self._chosen(groups, present, sizes, scores)
        set_widths(model, widths)
        self._report(feed, network, widths, kept, sizes, scores, tied, first="scores" not in saved)
        return model

    def _declared(self, model: nn.Module) -> tuple[str, ...]:
        """The layers whose widths are declared."""
        from suite.quantizers.layers import first_and_last

        ends = first_and_last(model) if self.first_last is not None else ()
        return (*ends, *(name for name, *_ in self.by_layer))

    def _scores(self, model: nn.Module, feed: Feed, groups: Sequence[Sequence[str]]) -> Scores:
        from suite.quantizers.hessian import traces
        from suite.quantizers.sensitivity import costs, evaluated, with_hessian, with_truth

        def tick(part: float, doing: str) -> None:
            feed.save(dict, min(part, 0.999), f"widths: {doing}")

        names = list(itertools.chain(*groups))
        rounded = rounded_at(model, self.widths, names, self.ranges, feed)
        needs_labels = self.by not in ("noise", "logits")
        batches = list(feed.labelled(self.images)) if needs_labels else unlabelled(feed, self.images)
        found = costs(rounded, batches, needs_labels, self.images.seed, tick)
        base = 0.0
        if self.by == "hessian":
            covered = tuple(dict.fromkeys(cost.layer for cost in found))
            found = with_hessian(
                found, traces(rounded.network, covered, batches, self.probes, self.images.seed)
            )
        if self.by == "loss":
            found = with_truth(rounded, found, batches, all_but=False, tick=tick)
            base = evaluated(rounded.network, batches).loss
        return covering(rounded.names, found, self.by, base)

    def _chosen(
        self,
        groups: Sequence[Sequence[str]],
        present: Widths,
        sizes: Mapping[str, LayerSize],
        scores: Scores,
    ) -> Widths:
        from suite.quantizers.width_search import drawn, least_cost

        options = self._options(present, list(itertools.chain(*groups)))
        resources = self._resources(groups, options, sizes)
        if self.by == "random":
            choice = drawn(options, resources, len(groups), self.seed)
        else:
            choice = least_cost(summed(groups, options, scores), resources)
        return {name: options[option] for group, option in zip(groups, choice, strict=True) for name in group}

    def _options(self, present: Widths, names: Sequence[str]) -> list[Option]:
        """Pairs of widths, of what is quantized at all."""
        widths = sorted(self.widths)
        rounded = [any(present[name][part] != FLOAT_BITS for name in names) for part in (0, 1)]
        weights, inputs = (widths if is_rounded else [FLOAT_BITS] for is_rounded in rounded)
        if self.apart or not all(rounded):
            return list(itertools.product(weights, inputs))
        return list(zip(weights, inputs, strict=True))

    def _resources(
        self, groups: Sequence[Sequence[str]], options: Sequence[Option], sizes: Mapping[str, LayerSize]
    ) -> list[Resource]:
        import numpy as np

        from suite.quantizers.width_search import Resource

        def of(field: str) -> Any:
            return np.array(
                [sum(getattr(sizes[name], field) for name in group) for group in groups], np.int64
            )

        found = []
        for budget, field_name, per_option, words in (
            (self.size_bits, "weights", [weight for weight, _ in options], "a mean of bits of a weight of"),
            (
                self.bops_per_mac,
                "macs",
                [weight * act for weight, act in options],
                "a mean of bit operations of a multiplication of",
            ),
        ):
            count = of(field_name)
            if budget and len(groups):
                used = count[:, None] * np.array(per_option, np.int64)
                found.append(Resource(used, budget * float(count.sum()), float(count.sum()), words))
        return found

    def _report(
        self,
        feed: Feed,
        network: nn.Module,
        widths: Widths,
        kept: Widths,
        sizes: Mapping[str, LayerSize],
        scores: Scores,
        tied: Sequence[Sequence[str]],
        first: bool,
    ) -> None:
        from suite.quantizers.layer_sizes import totals
        from suite.quantizers.model_size import size_mb

        whole = totals(sizes, widths)
        smaller = sum(size.weights * FLOAT_BITS for size in sizes.values()) / 8e6 - whole["weights_mb"]
        size = size_mb(network) - smaller
        layers = []
        for name, (weight_bits, input_bits) in widths.items():
            mine = {tensor: _by_bits(scores, name, tensor) for tensor in ("weight", "input")}
            layer = {
                "name": name,
                "weight_bits": weight_bits,
                "input_bits": input_bits,
                **asdict(sizes[name]),
            }
            layers.append({**layer, "declared": name in kept and self.by != "uniform", "scores": mine})
        budget = {"size_bits": self.size_bits, "bops_per_mac": self.bops_per_mac}
        content = {"format": 1, "by": self.by, "budget": budget, **whole, "size_mb": size}
        feed.keep("widths.json", {**content, "tied": [list(group) for group in tied], "layers": layers})
        if first:  # what an earlier attempt recorded of later epochs would count no more
            names = ("mean_weight_bits", "mean_weight_bits_by_layer", "bops")
            feed.measured(**{name: whole[name] for name in names}, size_mb=size)


def fixed(declared: Widths, tied: Sequence[Sequence[str]]) -> Widths:
    """The widths that are declared, and those of the layers that are tied to such.

    Raises SuiteError where tied layers have different ones."""
    found = dict(declared)
    for group in tied:
        widths = {name: declared[name] for name in group if name in declared}
        if len(set(widths.values())) > 1:
            words = ", ".join(f"{name} w{weight}a{act}" for name, (weight, act) in widths.items())
            raise SuiteError(
                f"layers that take one tensor or are added need the same widths, but {words} are declared; give all "
                f"of {', '.join(group)} the same, or none"
            )
        if widths:
            found |= dict.fromkeys(group, next(iter(widths.values())))
    return found


def free_groups(names: Sequence[str], tied: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The layers `names` in groups of the same widths, in their order."""
    group_of = {name: tuple(group) for group in tied for name in group}
    return list(dict.fromkeys(group_of.get(name, (name,)) for name in names))


def covering(names: Sequence[str], found: Sequence[Cost], by: str, base: float = 0.0) -> Scores:
    """The score of each tensor at each width, none below zero and none above that of fewer bits; of "loss" what it
    rises above `base`. Raises SuiteError, naming it, for a layer without one."""
    from suite.quantizers.width_search import never_rising

    tensors: dict[tuple[str, str], dict[int, float]] = {}
    for cost in found:
        score = cost.loss_alone if by == "loss" else getattr(cost, by)
        if score is not None and abs(score) < float("inf"):
            tensors.setdefault((cost.layer, cost.tensor), {})[cost.bits] = score - base
    bits = {cost.bits for cost in found}
    without = [name for name in names if not any(layer == name for layer, _ in tensors)]
    without += [layer for (layer, _), mine in tensors.items() if mine.keys() != bits]
    if without:
        raise SuiteError(
            f"no score covers layer {without[0]}: it computes nothing on the images, or not finitely; declare its "
            f"widths in by_layer"
        )
    return {  # in six digits, so that ranks whose devices add in other orders choose alike
        (layer, tensor, width): float(f"{score:.6g}")
        for (layer, tensor), mine in tensors.items()
        for width, score in never_rising(mine).items()
    }


def summed(groups: Sequence[Sequence[str]], options: Sequence[Option], scores: Scores) -> Any:
    """float64 [groups, options]: the scores of all tensors of a group; what stays float costs nothing."""
    import numpy as np

    rows = [
        [
            sum(
                scores.get((name, "weight", weight), 0.0) + scores.get((name, "input", act), 0.0)
                for name in group
            )
            for weight, act in options
        ]
        for group in groups
    ]
    return np.array(rows, dtype=np.float64).reshape(len(groups), len(options))


def _by_bits(scores: Scores, name: str, tensor: str) -> dict[str, float]:
    return {
        str(bits): score for (layer, kind, bits), score in scores.items() if (layer, kind) == (name, tensor)
    }
