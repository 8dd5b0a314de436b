"""Each layer gets a width of its own, so that the network costs least within a budget."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from suite.recipe import FLOAT_BITS, Calibration
from suite.recipe.errors import SuiteError, check_choice, check_whole
from suite.recipe.method import Feed, Step
from suite.recipe.settings import NEW
from suite.recipe.words import counted
from suite.steps.insert import LayerWidths
from suite.steps.layer_times import LayerTimes
from suite.steps.measure_sensitivity import IMAGES, check_candidates
from suite.steps.width_groups import Widths, fixed, free_groups, with_one_weight
from suite.steps.width_scores import Scores, Traces, by_bits, doubtful, scores_of, summed, traces_of

if TYPE_CHECKING:
    from torch import nn

    from suite.quantizers.layer_sizes import LayerSize
    from suite.sensitivity.width_search import Option, Resource

NANOSECONDS = 10**6
"""Of a millisecond; times are counted in whole ones."""
SLOW = 5.0
"""Seconds, from which on a search says how long it took. It is no part of the record, which is the same every time."""

By = Literal["noise", "logits", "gradient", "hessian", "loss", "random", "uniform"]


@dataclass(frozen=True)
class AssignWidths(Step):
    """After Insert, and before the ranges.

    by: the score whose sum is made least, of suite.sensitivity.costs, "loss" by the loss with one tensor rounded
    alone; "random" draws widths of the budget by `seed`; "uniform" leaves them as they are.
    widths: those to choose from. apart: weights and inputs of a layer may differ.
    size_bits: the mean bits of a weight, by parameter, at most; bops_per_mac: the mean product of weight and input
    bits by multiplication, at most, which is 16 where both have 4 bits; latency_ms: the milliseconds of all layers
    together, at most, as `times` has them of each. All of the layers whose width is free; 0 is none.
    first_last, by_layer: as of Insert; these layers keep their widths, and so do those that are tied to them. Layers
    that take one tensor, have one weight together, or are added, are tied: all get the same widths.
    ranges: the steps that give the inserted quantizers their ranges. images: training images of the scores; probes:
    random vectors for every 8 of them, for the trace of the Hessian.

    Raises SuiteError for widths that are none, for a budget that is no limit, and without any.
    """

    by: By = "hessian"
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
    latency_ms: float = field(default=0.0, metadata=NEW)
    times: LayerTimes = field(default=LayerTimes(), metadata=NEW)

    takes_long: ClassVar[bool] = True
    chooses_widths: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("by", self.by, get_args(By))
        check_candidates(self.widths)
        check_whole(self, 1, probes=self.probes)
        budgets = self.size_bits, self.bops_per_mac, self.latency_ms
        if not all(_is_budget(budget) for budget in budgets):
            raise SuiteError(f"a budget is a finite number from 0 on, got {', '.join(map(str, budgets))}")
        if self.by != "uniform" and not max(budgets):
            raise SuiteError("widths need a budget: give size_bits, bops_per_mac or latency_ms")
        if bool(self.latency_ms) != bool(self.times.times):
            raise SuiteError(
                "latency_ms and times belong together: times=LayerTimes.read(FILE), of suite latency KEY --layers"
            )

    @property
    def revision(self) -> int:  # type: ignore[override]
        """As of `mixed`."""
        return 3 if self.by == "hessian" else 1

    @property
    def sets_widths(self) -> bool:
        """It keeps what `first_last` says."""
        return True

    @property
    def names_layers(self) -> bool:
        return bool(self.by_layer)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself. Keeps `widths.json`: the widths, what they come to, the scores, by "hessian" its traces with
        their standard errors, and a warning where these tell little; and records the metrics
        mean_weight_bits, mean_weight_bits_by_layer, bops and size_mb, and latency_ms where that is a budget.

        Raises SuiteError for a budget that no assignment meets, with the least that is possible; where layers that are
        tied have different widths declared; and for a layer that no score or no measured time covers.
        """
        from suite.networks.graph import graph_of
        from suite.networks.ties import joined
        from suite.quantizers.layer_sizes import layer_sizes
        from suite.quantizers.layers import set_widths, widths_of, without_quantizers

        network, widths = without_quantizers(model).eval(), widths_of(model)
        graph = graph_of(network).reported()
        order = list(dict.fromkeys((*graph.layers, *widths)))
        tied = joined(order, [*graph.tied, *with_one_weight(network, widths)])
        present = {name: widths[name] for name in order if name in widths}
        ends = (*graph.first, *graph.last) if self.first_last is not None else ()
        named = (*ends, *(name for name, *_ in self.by_layer))
        declared = {name: present[name] for name in named if name in present}  # but those that are float
        kept = dict(present) if self.by == "uniform" else fixed(declared, tied)
        x = next(iter(feed.batches(replace(self.images, images=1, batch=1))))
        sizes = layer_sizes(network, list(present), x)
        groups = free_groups([name for name in present if name not in kept], tied)
        saved = feed.saved() or {}
        scores, traces = dict(saved.get("scores", {})), dict(saved.get("traces", {}))
        if groups and self.by != "random" and "scores" not in saved:
            scores, traces = self._scores(model, feed, groups)
        feed.save(lambda: {"epoch": 0, "batches": 0, "scores": scores, "traces": traces}, 1.0)
        widths = present | kept | self._chosen(groups, present, sizes, scores)
        set_widths(model, widths)
        self._report(feed, network, widths, kept, sizes, scores, traces, tied, first="scores" not in saved)
        return model

    def _scores(self, model: nn.Module, feed: Feed, groups: Sequence[Sequence[str]]) -> tuple[Scores, Traces]:
        how = self.by, self.widths, self.ranges, self.images, self.probes
        return scores_of(model, feed, groups, *how)

    def _chosen(
        self,
        groups: Sequence[Sequence[str]],
        present: Widths,
        sizes: Mapping[str, LayerSize],
        scores: Scores,
    ) -> Widths:
        from suite.sensitivity.width_search import drawn, least_cost

        options = self._options(present, list(itertools.chain(*groups)))
        resources = self._resources(groups, options, sizes)
        if self.by == "random":
            choice = drawn(options, resources, len(groups), self.seed)
        else:
            begun = time.monotonic()
            choice = least_cost(summed(groups, options, scores), resources)
            if (seconds := time.monotonic() - begun) >= SLOW:
                problem = (
                    f"{counted(len(groups), 'group')} of layers, {counted(len(options), 'pair')} of widths"
                )
                print(f"the search for widths took {seconds:.0f} s: {problem} for each", flush=True)
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
        """The budgets that are given, and what each group uses of them at each option."""
        if not groups:
            return []
        weights, macs = (
            [sum(getattr(sizes[name], what) for name in group) for group in groups]
            for what in ("weights", "macs")
        )
        found = []
        if self.size_bits:
            used = [[count * weight for weight, _ in options] for count in weights]
            found.append(_resource(used, self.size_bits, sum(weights), "a mean of bits of a weight of"))
        if self.bops_per_mac:
            used = [[count * weight * act for weight, act in options] for count in macs]
            words = "a mean of bit operations of a multiplication of"
            found.append(_resource(used, self.bops_per_mac, sum(macs), words))
        if self.latency_ms:
            used = [[self._nanoseconds(group, option) for option in options] for group in groups]
            found.append(_resource(used, self.latency_ms, NANOSECONDS, "milliseconds of"))
        return found

    def _nanoseconds(self, group: Sequence[str], option: Option) -> int:
        return round(NANOSECONDS * sum(self.times.milliseconds(name, *option) for name in group))

    def _report(
        self,
        feed: Feed,
        network: nn.Module,
        widths: Widths,
        kept: Widths,
        sizes: Mapping[str, LayerSize],
        scores: Scores,
        traces: Traces,
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
            mine = {tensor: by_bits(scores, name, tensor) for tensor in ("weight", "input")}
            layer = {
                "name": name,
                "weight_bits": weight_bits,
                "input_bits": input_bits,
                **asdict(sizes[name]),
            }
            declared = name in kept and self.by != "uniform"
            layers.append({**layer, "declared": declared, "scores": mine, **traces_of(traces, name)})
        budget = {"size_bits": self.size_bits, "bops_per_mac": self.bops_per_mac}
        if self.latency_ms and self.by != "uniform":
            budget["latency_ms"] = self.latency_ms
            free = {name: pair for name, pair in widths.items() if name not in kept}
            whole["latency_ms"] = sum(self.times.milliseconds(name, *pair) for name, pair in free.items())
        content: dict[str, Any] = {"format": 1, "by": self.by, "budget": budget, **whole, "size_mb": size}
        if doubt := doubtful(traces):
            content["warnings"] = [doubt]
            warnings.warn(doubt, stacklevel=2)
        feed.keep("widths.json", {**content, "tied": [list(group) for group in tied], "layers": layers})
        if first:  # what an earlier attempt recorded of later epochs would count no more
            names = ("mean_weight_bits", "mean_weight_bits_by_layer", "bops", "latency_ms")
            feed.measured(**{name: whole[name] for name in names if name in whole}, size_mb=size)


def _resource(used: Sequence[Sequence[int]], budget: float, unit: float, words: str) -> Resource:
    """Of which there are `budget` times `unit`."""
    import numpy as np

    from suite.sensitivity.width_search import Resource

    return Resource(np.array(used, np.int64), budget * unit, unit, words)


def _is_budget(budget: Any) -> bool:
    """Whether it is a finite number from 0 on; NaN and infinity are no limits."""
    is_number = isinstance(budget, int | float) and not isinstance(budget, bool)
    return is_number and math.isfinite(budget) and budget >= 0
