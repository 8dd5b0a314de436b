"""Observers watch a tensor and answer the range to quantize it in.

Each is a Module whose buffers hold what was seen, so that it moves with the model and lies in its checkpoint.
`forward(x)` watches a tensor of any shape and float dtype and returns nothing; `range(grid)` answers (low, high),
float32, each of shape [] or [channels].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from suite.arithmetic.affine import Grid
from suite.arithmetic.cache_blocks import CACHE_BLOCK, elements
from suite.ranges.range_search import least_error, nth_largest, rank
from suite.ranks import Ranks
from suite.recipe.errors import SuiteError, not_finite

SMALLEST_EDGE = 2.0**-100
"""Of a histogram; a tensor of zeros has this one, so that a layer that died is no error."""
LARGEST_EXPONENT = 127
"""Of float32; what lies beyond its power of two is counted in the last bin."""


class Observer(nn.Module):
    """What all observers share: before the first tensor there is no range."""

    seen: Tensor
    low: Tensor
    high: Tensor
    ranks = Ranks()
    """Those whose tensors count as one; see `observe_over`."""
    of = "a tensor to observe"
    """What it watches, for errors."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def range(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(low, high). Raises SuiteError before anything was seen, and where that held inf or NaN."""
        if not self.seen:
            raise SuiteError("an observer saw no tensor; calibrate the model before it is converted")
        low, high = self.limits(grid)
        if not (low.isfinite() & high.isfinite()).all():
            raise not_finite(self.of)
        return low, high

    def limits(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(low, high) of what was seen, without asking whether anything was and whether it was finite."""
        return self.low, self.high


class MinMax(Observer):
    """The extremes of all that was seen, over everything or per channel of `axis`."""

    def __init__(self, axis: int | None = None) -> None:
        super().__init__()
        self.axis = axis

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        low, high = extremes(x, self.axis, self.ranks)
        again = self.seen > 0  # asked on the device, so that nothing waits for it
        self.low = torch.where(again, torch.minimum(low, self.low), low)
        self.high = torch.where(again, torch.maximum(high, self.high), high)
        self.seen += 1


class MovingMinMax(Observer):
    """An exponential moving average of each tensor's extremes: new = (1 - momentum) * old + momentum * seen.

    The first tensor sets the average. Source 001 has momentum 0.1 in its code and 0.01 in its text.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        low, high = extremes(x, ranks=self.ranks)
        weight = torch.where(self.seen > 0, self.momentum, 1.0)
        self.low.lerp_(low.float(), weight)
        self.high.lerp_(high.float(), weight)
        self.seen += 1


class Dynamic(Observer):
    """The extremes of the tensor seen last, over everything or per channel of `axis`: NVIDIA's dynamic amax."""

    def __init__(self, axis: int | None = None) -> None:
        super().__init__()
        self.axis = axis

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        self.low, self.high = extremes(x, self.axis, self.ranks)
        self.seen += 1


class LeastError(Dynamic):
    """The range of least squared error of the tensor seen last, over everything or per channel of `axis`, within so
    many `octaves` below its amax.

    Of two octaves amax * 2^(-k/16) is tried for each k; of more first in steps of 2^(1/4), and then about the best in
    steps of 2^(1/16) and of 2^(1/64). Of equals the widest is taken. For symmetric grids.
    """

    def __init__(self, axis: int | None = None, octaves: int = 2) -> None:
        super().__init__(axis)
        self.octaves = octaves

    def forward(self, x: Tensor) -> None:
        super().forward(x)
        self._x = x.detach().float()

    @torch.no_grad()
    def limits(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(-amax, amax), float32 [] or [channels]."""
        largest = torch.maximum(-self.low, self.high)
        if self.octaves <= 2:
            amax = self._best(largest, range(0, -16 * self.octaves - 1, -1), 16, grid)
        else:
            amax = self._best(largest, range(0, -4 * self.octaves - 1, -1), 4, grid)
            for steps in (16, 64):
                amax = self._best(amax, range(3, -4, -1), steps, grid).minimum(largest)
        return -amax, amax

    def _best(self, amax: Tensor, powers: Sequence[int], steps: int, grid: Grid) -> Tensor:
        """The best of amax * 2^(k/steps), with k of `powers`; float32, the shape of `amax`."""
        fractions = amax.new_tensor([2.0 ** (k / steps) for k in powers])
        return least_error(self._x, fractions.reshape(-1, *(1,) * amax.dim()) * amax, grid, self.axis)


class MovingPercentile(Observer):
    """A moving average of each tensor's percentile of |x| (source 002's fake-hist, momentum on the new value).

    The percentile of n values is the k-th smallest with k = int(percentile * n), at least 1, as the source has it.
    Watching raises SuiteError for a tensor that is empty or holds inf or NaN.
    """

    def __init__(self, percentile: float = 0.9999, momentum: float = 0.1) -> None:
        super().__init__()
        self.percentile, self.momentum = percentile, momentum

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        low, high = extremes(x)
        if not (low.isfinite() and high.isfinite()):
            raise not_finite(self.of)
        magnitudes = elements(x).float().abs()
        # The k-th smallest is the smallest of the (n - k + 1) largest: far fewer to order at high percentiles.
        amax = nth_largest(magnitudes, len(magnitudes) - rank(self.percentile, len(magnitudes)) + 1)
        self.high.lerp_(amax, torch.where(self.seen > 0, self.momentum, 1.0))
        self.low = torch.minimum(self.low, low.float()) if self.seen else low.float()
        self.seen += 1

    def limits(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(-amax, amax), the lower one no lower than anything seen."""
        low, high = super().limits(grid)
        return torch.maximum(low, -high), high


class Histogram(Observer):
    """Counts of |x| in equal bins, negative and positive apart; answers the amax of least squared error.

    The upper edge is a power of two. When a larger value comes the edge doubles and neighbouring bins join, so
    int64 counts stay exact and the result does not depend on the order or the size of the batches. Watching raises
    SuiteError for a tensor that is empty or holds inf or NaN.
    """

    counts: Tensor
    edge: Tensor

    def __init__(self, bins: int = 4096, search: bool = True, search_grid: Grid | None = None) -> None:
        super().__init__()
        self.search, self.search_grid = search, search_grid
        self.register_buffer("counts", torch.zeros(2, bins, dtype=torch.int64))
        self.register_buffer("edge", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> None:
        low, high = extremes(x)
        bins = self.counts.shape[1]
        amax = torch.maximum(-low, high).float()
        if not torch.isfinite(amax):
            raise not_finite(self.of)
        needed = torch.exp2(torch.ceil(torch.log2(amax.clamp_min(SMALLEST_EDGE))).clamp_max(LARGEST_EXPONENT))
        if not self.seen:
            self.edge = needed
            self.low, self.high = low.float(), high.float()
        while self.edge < needed:
            joined = self.counts.view(2, bins // 2, 2).sum(2)
            self.counts = torch.cat([joined, torch.zeros_like(joined)], dim=1)
            self.edge = self.edge * 2
        self.low, self.high = torch.minimum(self.low, low.float()), torch.maximum(self.high, high.float())
        self.counts += _counts(elements(x), self.edge, bins)
        self.seen += 1

    def limits(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """(-amax, amax) of least squared error on `grid`, the lower one no lower than anything seen.

        The extremes where `search` is off; searched on `search_grid` instead of `grid` where one was given.
        """
        low, high = super().limits(grid)
        if not self.search:
            return low, high
        amax = self._best(self.search_grid or grid)
        return torch.clamp(low, -amax, amax), amax

    def _best(self, grid: Grid) -> Tensor:
        """The amax, among 200 even fractions of the largest seen; every value counts as the middle of its bin."""
        bins = self.counts.shape[1]
        largest = torch.maximum(-self.low, self.high)
        middles = (torch.arange(bins, device=self.edge.device) + 0.5) * (self.edge / bins)
        candidates = largest * (torch.arange(1, 201, device=self.edge.device) / 200)
        return least_error(torch.stack([-middles, middles]), candidates, grid, counts=self.counts)


def _counts(values: Tensor, edge: Tensor, bins: int) -> Tensor:
    """int64 [2, bins]: how many of the `values` [n] have a magnitude in each of the equal bins from 0 to `edge`, a
    power of two; in the first row those up to 0, in the second those above. What lies beyond is in the last bin.

    On a CPU one block of values after the other, which stays in its cache, under numbers of 16 bits.
    """
    number = torch.int16 if 2 * bins <= 1 << 15 else torch.int32
    counts = torch.zeros(2 * bins, dtype=torch.int64, device=values.device)
    per_value = bins / edge
    for some in torch.split(values, CACHE_BLOCK if values.device.type == "cpu" else len(values)):
        index = (some.float() * per_value).clamp_(1 - bins, bins - 1).to(number)
        index += some > 0
        counts += torch.bincount(index.add_(bins - 1), minlength=2 * bins)
    return torch.stack([counts[:bins].flip(0), counts[bins:]])


def extremes(x: Tensor, axis: int | None = None, ranks: Ranks = Observer.ranks) -> tuple[Tensor, Tensor]:
    """(min, max) over everything, or per channel of `axis`, on all `ranks`: float32 [] or [x.shape[axis]].

    Where several ranks observe, one whose share of a batch is empty adds nothing. Raises SuiteError for an empty
    tensor on one rank.
    """
    x = x.detach()
    if x.numel() == 0 and ranks.world_size == 1:
        raise SuiteError(f"an empty tensor of shape {list(x.shape)} has no range to observe")
    if x.numel() == 0:
        nothing = x.new_full([] if axis is None else [x.shape[axis]], -torch.inf)
        low, high = -nothing, nothing
    elif axis is None:
        low, high = x.amin(), x.amax()  # on a CPU faster than aminmax
    else:
        low, high = torch.aminmax(_channels(x, axis), dim=1)
    wide = torch.promote_types(x.dtype, torch.float32)
    low, high = low.to(wide), high.to(wide)
    if ranks.world_size == 1:
        return low, high
    negated, high = ranks.max(torch.stack([-low, high]))
    return -negated, high


def _channels(x: Tensor, axis: int) -> Tensor:
    """[x.shape[axis], values of each channel]; `x` of one dimension has one value each."""
    return x.transpose(0, axis).reshape(x.shape[axis], -1)


def observe_over(model: nn.Module, ranks: Ranks) -> None:
    """Let every observer of an activation in `model` take the tensors of all ranks for one; a weight is the same on
    each. Raises SuiteError for an observer that cannot."""
    for name, module in model.named_modules():
        if name.endswith("weight.observer"):
            continue
        if isinstance(module, (MovingPercentile, Histogram)) and ranks.world_size > 1:
            raise SuiteError(f"{type(module).__name__} observes on one rank only; use world_size 1")
        if isinstance(module, Observer):
            module.ranks = ranks
