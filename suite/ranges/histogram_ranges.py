"""The ranges of all layers at all widths, computed from their Histograms and nothing else.

Each function answers float32 [L, widths] for the L layers observed and the `bits` asked for; affine_mse and clipped
answer two of them. Between the edges of a bin of the histogram values count as evenly spread; zero counts as exactly
zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid
from suite.ranges.histogram import PATTERNS, Histograms
from suite.ranges.range_search import bin_reaching, cumulative, least_divergence, rank, spread_error
from suite.recipe.errors import check_fraction


def symmetric_grid(bits: int, unsigned: bool = False) -> Grid:
    """-amax..amax with the lowest integer left out, or 0..amax."""
    return Grid(bits, signed=not unsigned, narrow=not unsigned)


def amax(seen: Histograms, bits: Sequence[int]) -> Tensor:
    """float32 [L, widths]: the largest magnitude, exact, the same at every width."""
    return seen.amax[:, None].expand(-1, len(bits))


def clipped(seen: Histograms, amax: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high), float32 [L, widths] each: the extremes, widened to hold 0, clipped at -amax and at amax."""
    low, high = seen.low.clamp_max(0)[:, None], seen.high.clamp_min(0)[:, None]
    return torch.maximum(low, -amax), torch.minimum(high, amax)


def percentile(seen: Histograms, bits: Sequence[int], fraction: float = 0.9999) -> Tensor:
    """float32 [L, widths]: the k-th smallest magnitude, k = int(fraction * n) and at least 1, rounded to bfloat16.

    Rounding keeps the order, so this is exact. Never above the largest magnitude; the same at every width.
    """
    check_fraction("percentile", fraction)
    largest = seen.amax
    ranks = torch.tensor([rank(fraction, n) for n in seen.values.tolist()], device=largest.device)
    pattern = bin_reaching(seen.magnitudes, ranks[:, None])[:, 0]
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
        error = _errors(falls, scales, torch.zeros_like(highest), highest)
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
        error = _errors([falls[row] for row in rows.tolist()], *torch.stack(grids, dim=2))
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
    zero left out; cut at each `stride`-th bin from the last down to `first` (NVIDIA's stride is 1), with 2^(bits-1)
    cells, 2^bits where unsigned: see range_search.divergences. Of equals the widest is taken.
    """
    largest = seen.amax
    histogram = _equal_bins(seen, bins)
    free = ((seen.low >= 0) & unsigned).tolist()
    cuts = torch.arange(bins, first - 1, -stride, device=largest.device)
    found = [
        torch.stack([least_divergence(row, cuts, 1 << (number - 1 + own)) for number in bits])
        for row, own in zip(histogram, free, strict=True)
    ]
    return largest[:, None] * (torch.stack(found) / bins)


def _errors(falls: Sequence[tuple[Tensor, Tensor]], *grids: Tensor) -> Tensor:
    """float64 [L, widths, candidates]: the `spread_error` of each layer; `grids` are its scale, lowest and highest."""
    rows = zip(falls, *grids, strict=True)
    errors = [spread_error(*fall, *grid) for fall, *grid in rows]
    return torch.stack(errors) if errors else grids[0].double()


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
    return counts, _ended(_edges(counts.device), smallest, seen.amax)


def _signed(seen: Histograms) -> tuple[Tensor, Tensor]:
    """(counts [L, 65536], edges [L, 65537]) of what is not zero, the lowest value first."""
    half = PATTERNS // 2
    counts = torch.cat([seen.counts[:, half:].flip(1), seen.counts[:, :half]], dim=1)
    counts[:, half - 1 : half + 1] = 0
    edges = _edges(counts.device)
    return counts, _ended(torch.cat([-edges.flip(0), edges[1:]]), seen.low, seen.high)


def _ended(edges: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """float64 [L, bins + 1]: the outermost bins end at low and high, [L], and 2^-20 of these beyond: a bin of one
    value has a width too."""
    low, high = low.double()[:, None], high.double()[:, None]
    return edges.clamp(low - 2.0**-20 * low.abs(), high + 2.0**-20 * high.abs())


def _falls(counts: Tensor, edges: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Per layer (edges, by how much the density of values falls at each), float64, where it does."""
    density = torch.where(counts > 0, counts / edges.diff(dim=1), 0.0)
    falls = -torch.nn.functional.pad(density, (1, 1)).diff(dim=1)
    return [(edge[fall != 0], fall[fall != 0]) for edge, fall in zip(edges, falls, strict=True)]


def _equal_bins(seen: Histograms, bins: int) -> Tensor:
    """float64 [L, bins]: counts of |x| over 0..amax, zero left out."""
    counts, edges = _magnitudes(seen)
    wanted = seen.amax.double()[:, None] * torch.arange(bins + 1, device=edges.device) / bins
    index = torch.searchsorted(edges, wanted, right=True).sub_(1).clamp_(0, counts.shape[1] - 1)
    start, end = edges.gather(1, index), edges.gather(1, index + 1)
    inside = ((wanted - start) / (end - start)).nan_to_num(nan=0.0).clamp_(0, 1)
    before = cumulative(counts.double())
    below = before.gather(1, index) + inside * counts.gather(1, index)
    below[:, -1] = before[:, -1]
    return below.diff(dim=1)


def _ladder(highest: int, lowest: int, steps: int, device: torch.device) -> Tensor:
    """2^(k/steps) for k from highest down to lowest, so that of equals the first is the widest range."""
    return torch.exp2(torch.arange(highest, lowest - 1, -1, device=device) / steps)
