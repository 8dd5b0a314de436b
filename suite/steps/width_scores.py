"""What each width of each tensor costs, as the integer program of AssignWidths takes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from suite.recipe import Calibration
from suite.recipe.errors import SuiteError
from suite.recipe.method import Feed, Step
from suite.recipe.words import counted
from suite.steps.measure_sensitivity import TRUTH, rounded_at, unlabelled

if TYPE_CHECKING:
    from torch import nn

    from suite.sensitivity.costs import Cost
    from suite.sensitivity.width_search import Option

Scores = dict[tuple[str, str, int], float]
"""By layer, tensor and bits."""
Traces = dict[tuple[str, str], tuple[float, float]]
"""By layer and tensor: the mean of the Hessian's diagonal, which is its trace divided by how many numbers the tensor
has, and the standard error of that (NaN of one sample)."""
SIGNIFICANT = 2
"""Of its standard errors, from which on a trace is not that of a few images."""


def scores_of(
    model: nn.Module,
    feed: Feed,
    groups: Sequence[Sequence[str]],
    by: str,
    widths: Sequence[int],
    ranges: Sequence[Step],
    images: Calibration,
    probes: int,
) -> tuple[Scores, Traces]:
    """The score `by` of the layers in `groups`, and by "hessian" its traces; the other arguments are those of
    AssignWidths. Of "loss" what an earlier attempt evaluated is not evaluated again."""
    from suite.sensitivity.costs import costs, evaluated, with_hessian, with_truth
    from suite.sensitivity.hessian import traces

    known = dict((feed.saved() or {}).get(TRUTH, {}))

    def tick(part: float, doing: str) -> None:
        feed.save(lambda: {TRUTH: dict(known)}, min(part, 0.999), f"widths: {doing}")

    names = list(itertools.chain(*groups))
    rounded = rounded_at(model, widths, names, ranges, feed)
    needs_labels = by in ("gradient", "loss")
    batches = list(feed.labelled(images)) if needs_labels else unlabelled(feed, images)
    found = costs(rounded, batches, needs_labels, images.seed, tick)
    base, by_tensor = 0.0, Traces()
    if by == "hessian":
        covered = tuple(dict.fromkeys(cost.layer for cost in found))
        estimated = traces(rounded.network, covered, (x for x, _ in batches), probes, images.seed)
        found = with_hessian(found, estimated)
        by_tensor = {
            tensor_name: (one.trace / one.size, one.standard_error / one.size)
            for tensor_name, one in estimated.items()
        }
    if by == "loss":
        found = with_truth(rounded, found, batches, all_but=False, tick=tick, known=known)
        base = evaluated(rounded.network, batches).loss
    return covering(rounded.names, found, by, base), by_tensor


def doubtful(traces: Traces) -> str:
    """A warning of the tensors whose trace is below SIGNIFICANT of its standard errors, most of it from a few images.
    Empty where there is none."""
    weak = [tensor_name for tensor_name, (trace, error) in traces.items() if not trace >= SIGNIFICANT * error]
    if not weak:
        return ""
    named = ", ".join(f"{layer} {tensor}" for layer, tensor in weak[:5])
    more = f" and {len(weak) - 5} more" if len(weak) > 5 else ""
    return (
        f"the Hessian's trace of {len(weak)} of {counted(len(traces), 'tensor')} is below {SIGNIFICANT} of its "
        f"standard errors ({named}{more}): their costs are those of a few images, and with others the widths may be "
        f"others; take more images or another score"
    )


def traces_of(traces: Traces, name: str) -> dict[str, dict[str, dict[str, float | None]]]:
    """Those of a layer's tensors as JSON has them, by the number; empty where there are none."""
    found = {
        tensor: {"trace": trace, "standard_error": error if error == error else None}
        for (layer, tensor), (trace, error) in traces.items()
        if layer == name
    }
    return {"hessian": found} if found else {}


def covering(names: Sequence[str], found: Sequence[Cost], by: str, base: float = 0.0) -> Scores:
    """The score of each tensor at each width, none below zero and none above that of fewer bits; of "loss" what it
    rises above `base`. Raises SuiteError, naming it, for a layer without one."""
    from suite.sensitivity.width_search import never_rising

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


def by_bits(scores: Scores, name: str, tensor: str) -> dict[str, float]:
    """Those of one tensor of a layer, as JSON names them."""
    return {
        str(bits): score for (layer, kind, bits), score in scores.items() if (layer, kind) == (name, tensor)
    }
