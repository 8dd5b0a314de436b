"""The searches for a range: by least squared error, by a percentile, by least divergence.

Pure functions of values or counts, candidates and a grid. Observers, the ranges of histograms and NVIDIA's interface
bring their own values and candidates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid, fake_quantize
from suite.arithmetic.cache_blocks import CACHE_BLOCK

AT_A_TIME = 2 * CACHE_BLOCK
"""How many numbers, such as candidates times values, are worked on at a time: they stay in a processor's own cache.
The last bits of an error may depend on it."""


def least_error(
    values: Tensor, candidates: Tensor, grid: Grid, axis: int | None = None, counts: Tensor | None = None
) -> Tensor:
    """The largest magnitude, of the `candidates`, of least squared error on the symmetric `grid`; of equals the first.

    values: of any shape. counts: how often each occurs, in the same shape; without it, once. candidates: [number], or
    with an `axis` of `values` [number, channels], for one answer a channel. Returns float32, [] or [channels].
    """
    costs = []
    for some in torch.split(candidates, max(1, AT_A_TIME // max(1, values.numel()))):
        scale, _ = grid.symmetric(some, checked=False)
        scale = scale.reshape(len(some), *(-1 if dim == axis else 1 for dim in range(values.dim())))
        error = fake_quantize(values, scale, None, grid.quant_min, grid.quant_max) - values
        squared = error.square_() if counts is None else error.double().square_() * counts
        if axis is not None:
            squared = squared.transpose(1, axis + 1)
        costs.append(squared[..., None].flatten(some.dim()).sum(-1))
    return candidates.gather(0, torch.cat(costs).argmin(0, keepdim=True))[0]


def spread_error(edges: Tensor, falls: Tensor, scale: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """The squared error, summed over values that are evenly spread between the edges of their bins: for bins that are
    wider than a step of the grid, where `least_error` would take each for one value.

    edges, falls: float64 [edges], by how much the density of values falls at each edge. scale, lowest, highest: of any
    one shape, the grids of integers times scale and their last two integers as seen from zero. Returns float64 of that
    shape. With n the nearest integer of the grid to x / scale and r = x / scale - n, the integral of the squared error
    from 0 to x is scale^3 * (n / 12 + r^3 / 3), inside the grid and beyond it.
    """
    grids = [part.double().reshape(-1, 1) for part in (scale, lowest, highest)]
    step = max(1, AT_A_TIME // max(1, len(edges)))
    parts = []
    for size, low, high in zip(*(torch.split(part, step) for part in grids), strict=True):
        # What every grid of this part rounds to zero has the error x^2, whatever the scale.
        outer = edges.abs() > size.min() / 2
        inner = (falls * edges**3).masked_fill_(outer, 0).sum() / 3
        rest = edges[outer] * size.reciprocal()
        nearest = rest.round().clamp_(low, high)
        rest -= nearest
        integral = (rest * rest).mul_(rest).mul_(4).add_(nearest)
        parts.append((integral @ falls[outer]) * size[:, 0] ** 3 / 12 + inner)
    return torch.cat(parts).view(scale.shape)


def rank(fraction: float, number: int) -> int:
    """k, so that the k-th smallest of `number` values is their percentile: int(fraction * number), at least 1, as
    source 002 has it."""
    return max(1, int(fraction * number))


GROUPED = 64
"""How many values `nth_largest` takes together."""


def nth_largest(values: Tensor, number: int) -> Tensor:
    """The value of `values` [n] for which `number` are as large or larger, [].

    torch sorts all of them, which takes a CPU long. So many groups of values as are asked for have a largest one that
    is at least the `number`-th of all groups; what is asked for is in these groups.
    """
    groups = len(values) // GROUPED
    if values.device.type != "cpu" or groups <= number:
        return values.topk(number, sorted=False).values.min()
    grouped = values[: groups * GROUPED].view(GROUPED, groups)
    largest = grouped.amax(0)
    kept = largest >= largest.topk(number, sorted=False).values.min()
    some = torch.cat([grouped[:, kept.nonzero()[:, 0]].flatten(), values[groups * GROUPED :]])
    return some.topk(number, sorted=False).values.min()


def bin_reaching(counts: Tensor, wanted: Tensor | float) -> Tensor:
    """int64: the first bin with which the sum of the counts so far reaches `wanted`, that of the k-th smallest value.

    counts: [..., bins], of values or of shares. wanted: one number, or [..., numbers] of the dtype of the sums.
    """
    return torch.searchsorted(counts.cumsum(-1), wanted)


def least_divergence(counts: Tensor, cuts: Tensor, cells: int) -> Tensor:
    """The cut, int64 [], of the smallest of `divergences`; of equals the first."""
    return cuts[divergences(counts, cuts, cells).argmin()]


def divergences(counts: Tensor, cuts: Tensor, cells: int) -> Tensor:
    """The Kullback-Leibler divergence KL(p || q) of each cut of a histogram, float64 [cuts]; inf where it has none.

    counts: float64 [bins]; the first bin is taken to be as the second, for zeros say nothing about a range. cuts:
    int64, from 1 to the number of bins. For the cut i, p is the first i bins with all the rest added to the last of
    them; q is the first i bins, averaged within each of `cells` equal cells over the bins that are not empty. Both are
    normalized. Here in sums of prefixes: only the sums between the bounds of the cells are needed.
    """
    cells = min(cells, len(counts))
    counts = torch.cat([counts[1:2], counts[1:]])
    before, filled, plain = (
        cumulative(x) for x in (counts, (counts > 0).double(), torch.special.xlogy(counts, counts))
    )
    total, found = counts.sum(), []
    for cut in torch.split(cuts, max(1, AT_A_TIME // (cells + 1))):
        last, beyond = counts[cut - 1], total - before[cut]
        bounds = (cut[:, None] * torch.arange(cells + 1, device=cut.device) + cells - 1) // cells
        inside = before[bounds].diff(dim=1)
        average = inside / filled[bounds].diff(dim=1).clamp_min(1)
        last_average = average.gather(1, ((cut - 1) * cells // cut)[:, None])[:, 0]
        p_log_p = plain[cut - 1] + torch.special.xlogy(last + beyond, last + beyond)
        p_log_q = torch.special.xlogy(inside, average).sum(1) + torch.special.xlogy(beyond, last_average)
        lost = (p_log_p - p_log_q) / total - torch.log(total / before[cut])
        # What lies beyond an empty last bin has no counterpart in q.
        none = lost.isnan() | ((last == 0) & (beyond > 0))
        found.append(lost.masked_fill(none, math.inf))
    return torch.cat(found)


def cumulative(x: Tensor) -> Tensor:
    """Sums over the last dimension: of nothing, of the first, of the first two, and last of all."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))
