"""The ranges of all layers at all widths, computed from their Histograms and nothing else.

Each function answers float32 [L, widths] for the L layers observed and the `bits` asked for; affine_mse answers two
of them. Between the edges of a bin of the histogram values count as evenly spread; zero counts as exactly zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suite.quantizers.affine import Grid
from suite.quantizers.histogram import PATTERNS, Histograms
from suite.recipe.errors import SuiteError


def symmetric_grid(bits: int, unsigned: bool = False) -> Grid:
    """-amax..amax with the lowest integer left out, or 0..amax."""
    return Grid(bits, signed=not unsigned, narrow=not unsigned)


def amax(seen: Histograms, bits: Sequence[int]) -> Tensor:
    """float32 [L, widths]: the largest magnitude, exact, the same at every width."""
    return seen.amax[:, None].expand(-1, len(bits))


def percentile(seen: Histograms, bits: Sequence[int], fraction: float = 0.9999) -> Tensor:
    """float32 [L, widths]: the k-th smallest magnitude, k = int(fraction * n) and at least 1, rounded to bfloat16.

    Rounding keeps the order, so this is exact. Never above the largest magnitude; the same at every width.
    """
    if not 0 < fraction <= 1:
        raise SuiteError(f"percentile {fraction} is out of range; use a fraction above 0 and up to 1")
    largest = seen.amax
    ranks = [max(1, int(fraction * n)) for n in seen.values.tolist()]
    wanted = torch.tensor(ranks, device=largest.device)[:, None]
    pattern = torch.searchsorted(seen.magnitudes.cumsum(1), wanted)[:, 0]
    found = torch.minimum(_values(largest.device)[pattern].float(), largest)
    return found[:, None].expand(-1, len(bits))


def mse(seen: Histograms, bits: Sequence[int], unsigned: bool = False) -> Tensor:
    """float32 [L, widths]: the amax of least squared error on symmetric_grid(bits).

    Found among amax * 2^(-k/16): first every eighth over twelve octaves, then all beside the best.
    unsigned: layers without a negative value are rounded to 0..2^bits - 1.
    """
    largest = seen.amax[:, None, None]
    falls = _falls(*_magnitudes(seen))
    free = (seen.low >= 0) & unsigned

    def best(candidates: Tensor) -> Tensor:
        scales, highest = torch.empty_like(candidates), torch.empty_like(candidates)
        for width, number in enumerate(bits):
            for rows, grid in (
                (~free, symmetric_grid(number)),
                (free, symmetric_grid(number, unsigned=True)),
            ):
                scales[rows, width] = grid.symmetric(candidates[rows, width])[0]
                highest[rows, width] = grid.quant_max
        error = _squared_error(falls, scales, torch.zeros_like(highest), highest)
        return candidates.gather(2, error.argmin(2, keepdim=True))

    coarse = best((largest * _ladder(0, -24, 2, largest.device)).expand(-1, len(bits), -1))
    return best(torch.minimum(coarse * _ladder(7, -7, 16, largest.device), largest))[:, :, 0]


def affine_mse(seen: Histograms, bits: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(low, high), float32 [L, widths] each: the range of least squared error on Grid(bits, signed=False).affine.

    Both ends are drawn in together over twelve octaves; then, where both are not zero, all pairs about the best are
    tried, in steps of 2^(1/4), 2^(1/8) and 2^(1/16).
    """
    largest = seen.amax[:, None, None]
    device = largest.device
    falls = _falls(*_signed(seen))
    floor, ceiling = seen.low.clamp_max(0)[:, None, None], seen.high.clamp_min(0)[:, None, None]

    def best(low: Tensor, high: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.maximum(low, floor[rows]), torch.minimum(high, ceiling[rows])
        low, high = low + torch.zeros_like(high), high + torch.zeros_like(low)  # one shape
        grids = []
        for width, number in enumerate(bits):
            grid = Grid(number, signed=False)
            scale, zero_point = grid.affine(low[:, width], high[:, width])
            grids.append(torch.stack([scale, grid.quant_min - zero_point, grid.quant_max - zero_point]))
        error = _squared_error([falls[row] for row in rows.tolist()], *torch.stack(grids, dim=2))
        chosen = error.argmin(2, keepdim=True)
        return low.gather(2, chosen), high.gather(2, chosen)

    every = torch.arange(len(falls), device=device)
    two_sided = (seen.low < 0) & (seen.high > 0)
    drawn = (largest * _ladder(0, -24, 2, device)).expand(-1, len(bits), -1)
    low, high = best(-drawn, drawn, every)
    for ladder in (_ladder(2, -8, 4, device), _ladder(3, -3, 8, device), _ladder(2, -2, 16, device)):
        pairs = torch.cartesian_prod(ladder, ladder)
        for rows, below, above in (
            (every[~two_sided], ladder, ladder),
            (every[two_sided], pairs[:, 0], pairs[:, 1]),
        ):
            low[rows], high[rows] = best(low[rows] * below, high[rows] * above, rows)
    return low[:, :, 0], high[:, :, 0]


def entropy(
    seen: Histograms,
    bits: Sequence[int],
    unsigned: bool = False,
    bins: int = 2048,
    first: int = 128,
    stride: int = 4,
) -> Tensor:
    """float32 [L, widths]: the amax whose clipped histogram loses least information (Kullback-Leibler).

    NVIDIA's search (pytorch-quantization, `calib/histogram.py`, and TensorRT before it): |x| in `bins` equal bins,
    zero left out; for each i from `first` in steps of `stride` (NVIDIA's is 1), what lies beyond bin i joins the last
    bin, and that is compared with the bins averaged over 2^(bits-1) cells (2^bits where unsigned). Of equals the
    widest is taken.
    """
    largest = seen.amax
    histogram = _equal_bins(seen, bins)
    free = ((seen.low >= 0) & unsigned).tolist()
    ends = torch.arange(bins, first - 1, -stride, device=largest.device)
    result = torch.empty(len(free), len(bits), dtype=torch.int64, device=largest.device)
    for width, number in enumerate(bits):
        for kind in set(free):
            cells = min(1 << (number - 1 + kind), bins)
            rows = [row for row, own in enumerate(free) if own == kind]
            edges = (ends[:, None] * torch.arange(cells + 1, device=ends.device) + cells - 1) // cells
            for row in rows:
                lost = _divergence(histogram[row], ends, edges)
                result[row, width] = ends[lost.argmin()]
    return largest[:, None] * (result / bins)


def _divergence(histogram: Tensor, ends: Tensor, edges: Tensor) -> Tensor:
    """KL of the histogram clipped at each of `ends` from its average over the cells between `edges`, float64.

    histogram: [bins]; ends: [candidates]; edges: [candidates, cells + 1], the first bin of each cell.
    """
    total, last, before = histogram.sum(), histogram[ends - 1], _cumulative(histogram)
    beyond = total - before[ends]
    inside = before[edges].diff(dim=1)
    filled = _cumulative((histogram > 0).double())[edges].diff(dim=1).clamp_min(1)
    average = inside / filled
    own = _cumulative(torch.special.xlogy(histogram, histogram))[ends - 1]
    own += torch.special.xlogy(last + beyond, last + beyond)
    # The last bin's cell is the last one that is not empty of bins: with fewer bins than cells that is found by edge.
    cell = (edges[:, :-1] < ends[:, None]).sum(1, keepdim=True) - 1
    averaged = torch.special.xlogy(inside, average).sum(1)
    averaged += torch.special.xlogy(beyond, average.gather(1, cell)[:, 0])
    lost = (own - averaged) / total - torch.log(total / before[ends])
    # What lies beyond an empty last bin has no counterpart at all.
    return torch.where((last == 0) & (beyond > 0), math.inf, lost).nan_to_num(nan=math.inf)


def _squared_error(
    falls: Sequence[tuple[Tensor, Tensor]], scale: Tensor, lowest: Tensor, highest: Tensor
) -> Tensor:
    """float64 [L, widths, candidates]: the squared error summed over all values, on grids of integers times scale.

    falls: as of _falls, L of them. scale, lowest, highest: [L, widths, candidates], the last two integers as seen from
    zero. With n the nearest integer of the grid to x / scale and r = x / scale - n, the integral of the squared error
    from 0 to x is scale^3 * (n / 12 + r^3 / 3), inside the grid and beyond it.
    """
    error = torch.empty(scale.shape, dtype=torch.float64, device=scale.device)
    for layer, (x, fall) in enumerate(falls):
        rows = [part[layer].double().reshape(-1, 1) for part in (scale, lowest, highest)]
        step = max(1, _BLOCK // max(1, len(x)))
        parts = []
        for size, low, high in zip(*(torch.split(part, step) for part in rows), strict=True):
            # What every grid of the block rounds to zero has the error x^2, whatever the scale.
            outer = x.abs() > size.min() / 2
            inner = (fall * x**3).masked_fill_(outer, 0).sum() / 3
            rest = x[outer] * size.reciprocal()
            nearest = rest.round().clamp_(low, high)
            rest -= nearest
            integral = (rest * rest).mul_(rest).mul_(4).add_(nearest)
            parts.append((integral @ fall[outer]) * size[:, 0] ** 3 / 12 + inner)
        error[layer] = torch.cat(parts).view(scale.shape[1:])
    return error


_BLOCK = 1 << 16
"""Numbers in one block of candidates x edges: its few temporaries stay in a processor's own cache."""


def _values(device: torch.device) -> Tensor:
    """float64 [32768]: the magnitude of each pattern; what follows the largest finite one stands for 2^128."""
    value = (torch.arange(PATTERNS // 2, dtype=torch.int32, device=device) << 16).view(torch.float32).double()
    value[0x7F80:] = 2.0**128
    return value


def _edges(device: torch.device) -> Tensor:
    """float64 [32769]: halfway between neighbouring magnitudes, from 0."""
    value = _values(device)
    return torch.cat([value[:1], (value[1:] + value[:-1]) / 2, value[-1:]])


def _magnitudes(seen: Histograms) -> tuple[Tensor, Tensor]:
    """(counts [L, 32768], edges [L, 32769]) of what is not zero: zero has no error on any grid."""
    counts = seen.magnitudes
    counts[:, 0] = 0
    smallest = torch.maximum(seen.low, -seen.high).clamp_min(0)
    return counts, _clipped(_edges(counts.device), smallest, seen.amax)


def _signed(seen: Histograms) -> tuple[Tensor, Tensor]:
    """(counts [L, 65536], edges [L, 65537]) of what is not zero, the lowest value first."""
    half = PATTERNS // 2
    counts = torch.cat([seen.counts[:, half:].flip(1), seen.counts[:, :half]], dim=1)
    counts[:, half - 1 : half + 1] = 0
    edges = _edges(counts.device)
    return counts, _clipped(torch.cat([-edges.flip(0), edges[1:]]), seen.low, seen.high)


def _clipped(edges: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """float64 [L, bins + 1]: the outermost bins end at low and high, [L], and a hair: one value has a width too."""
    low, high = low.double()[:, None], high.double()[:, None]
    return edges.clamp(low - 2.0**-20 * low.abs(), high + 2.0**-20 * high.abs())


def _falls(counts: Tensor, edges: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Per layer (edges, by how much the density of values falls at each), float64, where it does."""
    density = torch.where(counts > 0, counts / edges.diff(dim=1), 0.0)
    falls = -torch.nn.functional.pad(density, (1, 1)).diff(dim=1)
    return [(edge[fall != 0], fall[fall != 0]) for edge, fall in zip(edges, falls, strict=True)]


def _equal_bins(seen: Histograms, bins: int) -> Tensor:
    """float64 [L, bins]: counts of |x| over 0..amax, zero left out; bin 0 is made equal to bin 1, as NVIDIA has it."""
    counts, edges = _magnitudes(seen)
    wanted = seen.amax.double()[:, None] * torch.arange(bins + 1, device=edges.device) / bins
    place = torch.searchsorted(edges, wanted, right=True).sub_(1).clamp_(0, counts.shape[1] - 1)
    start, end = edges.gather(1, place), edges.gather(1, place + 1)
    inside = ((wanted - start) / (end - start)).nan_to_num(nan=0.0).clamp_(0, 1)
    before = _cumulative(counts.double())
    below = before.gather(1, place) + inside * counts.gather(1, place)
    below[:, -1] = before[:, -1]
    result = below.diff(dim=1)
    result[:, 0] = result[:, 1]
    return result


def _cumulative(x: Tensor) -> Tensor:
    """Sums over the last dimension of everything before each place and, last, of all."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))


def _ladder(highest: int, lowest: int, steps: int, device: torch.device) -> Tensor:
    """2^(k/steps) for k from highest down to lowest, so that of equals the first is the widest range."""
    return torch.exp2(torch.arange(highest, lowest - 1, -1, device=device) / steps)
