"""The calibrator that counts magnitudes in a histogram, and answers the amax by entropy, MSE or a percentile.

NVIDIA's algorithms (TensorRT, tools/pytorch-quantization, calib), computed for all candidates at once; entropy is
TensorRT's (S. Migacz, "8-bit Inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from suite.arithmetic.affine import Grid
from suite.pytorch_quantization.calib.calibrator import Calibrator
from suite.pytorch_quantization.tensor_quant import Axis
from suite.ranges.observers import Observer
from suite.ranges.range_search import bin_reaching, least_divergence, least_error
from suite.recipe.errors import SuiteError, check_choice, not_finite

MOST_BINS = 1 << 24
"""A histogram that would need more has had a first tensor without meaning."""
EXACT = 1 << 24
"""Counts up to here are exact in float32, which torch.histc counts in."""


class HistogramCalibrator(Calibrator):
    """Counts of |x| in `num_bins` equal bins up to the first tensor's largest; more bins for later larger ones.

    Per tensor only. skip_zeros: zeros are not counted. Tensors of zeros before the first other are counted in the
    first bin. torch_hist: the bins begin at 0; without it, as numpy's, at the first tensor's smallest magnitude, and
    what is smaller later is passed over. grow_method: no longer means anything, as in NVIDIA's; other than None warns.
    `_calib_hist` has the counts and `_calib_bin_edges` the edges, None before a tensor other than zeros was seen.
    Counts are int64, so they are exact where NVIDIA's float32 ones stop at 16,777,216. Raises SuiteError for an axis
    and for a number of bins out of range.
    """

    def __init__(
        self,
        num_bits: int = 8,
        axis: Axis = None,
        unsigned: bool = False,
        num_bins: int = 2048,
        grow_method: str | None = None,
        skip_zeros: bool = False,
        torch_hist: bool = True,
    ) -> None:
        super().__init__(num_bits, axis, unsigned)
        if axis is not None:
            raise SuiteError(f"a histogram calibrator is per tensor, got axis {axis}; use a max calibrator")
        if type(num_bins) is not int or not 2 <= num_bins <= MOST_BINS:
            raise SuiteError(
                f"num_bins {num_bins!r} is out of range; use a whole number from 2 to {MOST_BINS}"
            )
        if grow_method is not None:
            warnings.warn(
                f"grow_method {grow_method!r} has no meaning any more; leave it out",
                DeprecationWarning,
                stacklevel=2,
            )
        self._num_bins, self._skip_zeros, self._torch_hist = num_bins, skip_zeros, torch_hist
        self.reset()

    def reset(self) -> None:
        self._zeros = 0  # seen while there were no edges yet
        self._calib_hist: Tensor | None = None
        self._calib_bin_edges: Tensor | None = None
        self._device = torch.device("cpu")

    @torch.no_grad()
    def collect(self, x: Tensor) -> None:
        """Count the magnitudes of `x`. Raises SuiteError as above, and where `x` is 8192 times the first and more."""
        x = x.detach().float().abs().flatten()
        if self._skip_zeros:
            x = x[x != 0]
        self._device = x.device
        if not x.numel():
            return
        smallest, largest = x.amin().cpu(), x.amax().cpu()
        if not torch.isfinite(largest):
            raise not_finite(Observer.of)
        if self._calib_bin_edges is None or self._calib_hist is None:
            if not largest:
                self._zeros += x.numel()
                return
            # Values that are all equal have no bin of their own unless the bins begin at 0.
            lowest = 0.0 if self._torch_hist or smallest == largest else float(smallest)
            edges = torch.linspace(lowest, float(largest), self._num_bins + 1)
            counts = torch.zeros(self._num_bins, dtype=torch.int64)
            counts[0] = self._zeros
        else:
            edges, counts = self._grown(self._calib_bin_edges.cpu(), self._calib_hist.long().cpu(), largest)
        for part in torch.split(x, EXACT):
            found = torch.histc(part, len(counts), float(edges[0]), float(edges[-1]))
            counts = counts + found.to("cpu", torch.int64)
        self._calib_bin_edges, self._calib_hist = edges, counts

    @staticmethod
    def _grown(edges: Tensor, counts: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """(edges, counts) with as many more bins of the same width as `largest` needs."""
        if largest <= edges[-1]:
            return edges, counts
        first = edges[0].double()
        width = edges[1].double() - first
        bins = int(torch.ceil((largest.double() - first) / width))
        if bins > MOST_BINS:
            raise SuiteError(
                f"a value of {float(largest):g} needs {bins} bins as wide as the first tensor's, {float(width):g}; "
                "calibrate on a batch first that is typical"
            )
        edges = torch.arange(float(first), float(first) + (bins + 0.5) * float(width), float(width))
        # Were the last edge rounded below the largest value, histc would pass over that value.
        edges[-1] = edges[-1].clamp_min(largest)
        return edges, torch.cat([counts, counts.new_zeros(bins - len(counts))])

    def compute_amax(
        self, method: str, *, stride: int = 1, start_bin: int = 128, percentile: float = 99.99
    ) -> Tensor | None:
        """The amax, of shape [] on the device of the last tensor; None before anything was seen, 0 after only zeros.

        "entropy": the edge, from `start_bin` on each `stride`-th, of least divergence (range_search), the last if
        several. "mse": the middle of a bin, of the same, of least expected squared error, the first if several.
        "percentile": the lower edge of the bin in which the share of values seen reaches `percentile` (0 to 100).
        """
        check_choice("method", method, ("entropy", "mse", "percentile"))
        if self._calib_hist is None or self._calib_bin_edges is None:
            return torch.zeros((), device=self._device) if self._zeros else None
        counts, edges = self._calib_hist.cpu().double(), self._calib_bin_edges.cpu()
        if method == "percentile":
            return _percentile(counts, edges, percentile).to(self._device)
        if not (type(start_bin) is type(stride) is int and stride >= 1 and 1 <= start_bin < len(counts)):
            raise SuiteError(
                f"start_bin {start_bin!r} with stride {stride!r} leaves none of {len(counts)} bins to try; "
                "use a start_bin from 1 to below the number of bins and a stride from 1"
            )
        if method == "mse":
            middles = (edges[1:] + edges[:-1]) / 2
            grid = Grid(self._num_bits, not self._unsigned)
            amax = least_error(middles, middles[start_bin::stride], grid, counts=counts)
        else:
            # From the widest down, so that of equals the widest is taken.
            cuts = torch.arange(start_bin, len(counts) + 1, stride).flip(0)
            levels = 1 << (self._num_bits - 1 + self._unsigned)
            amax = edges[least_divergence(counts, cuts, levels)]
        return amax.to(self._device)


def _percentile(counts: Tensor, edges: Tensor, percentile: float) -> Tensor:
    if not 0 <= percentile <= 100:
        raise SuiteError(f"percentile {percentile!r} is out of range; use 0 to 100, such as 99.99")
    # In shares, as NVIDIA does: a sum that falls short of 1 by a rounding puts 100 on the last edge.
    return edges[bin_reaching(counts / counts.sum(), percentile / 100)]
