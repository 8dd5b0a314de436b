"""Calibrators watch a tensor and answer the amax to quantize it with: the largest, or by a histogram.

NVIDIA's algorithms (TensorRT, tools/pytorch-quantization, calib), computed for all candidates at once; entropy is
TensorRT's (S. Migacz, "8-bit Inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from suite.pytorch_quantization.tensor_quant import Axis, reduce_amax
from suite.quantizers.affine import Grid
from suite.quantizers.observers import Observer
from suite.quantizers.range_search import bin_reaching, least_divergence, least_error
from suite.recipe.errors import SuiteError, check_bits, check_choice, not_finite

MOST_BINS = 1 << 24
"""A histogram that would need more has had a first tensor without meaning."""
EXACT = 1 << 24
"""Counts up to here are exact in float32, which torch.histc counts in."""


class Calibrator:
    """What both share: the tensor's grid, and `collect(x)` before `compute_amax(...)`.

    num_bits: 2 to 16. axis: see Axis. unsigned: as in a descriptor.
    """

    def __init__(self, num_bits: int = 8, axis: Axis = None, unsigned: bool = False) -> None:
        check_bits("num_bits", num_bits)
        self.num_bits, self.axis, self.unsigned = num_bits, axis, unsigned

    def collect(self, x: Tensor) -> None:
        """Watch `x`, of any shape. Raises SuiteError where it holds inf or NaN."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all that was seen."""
        raise NotImplementedError


class MaxCalibrator(Calibrator):
    """The largest magnitude of all that was seen, in the shape of reduce_amax."""

    def __init__(self, num_bits: int = 8, axis: Axis = None, unsigned: bool = False) -> None:
        super().__init__(num_bits, axis, unsigned)
        self._calib_amax: Tensor | None = None

    def collect(self, x: Tensor) -> None:
        amax = reduce_amax(x, self.axis)
        if not bool(amax.isfinite().all()):
            raise not_finite(Observer.of)
        if self._calib_amax is not None:
            if amax.shape != self._calib_amax.shape:
                raise SuiteError(
                    f"the amax's shape changed from {list(self._calib_amax.shape)} to {list(amax.shape)} within a "
                    f"calibration; along axis {self.axis} all tensors must be of one size"
                )
            amax = torch.maximum(amax, self._calib_amax)
        self._calib_amax = amax

    def reset(self) -> None:
        self._calib_amax = None

    def compute_amax(self, method: str = "max") -> Tensor | None:
        """The largest magnitude, or None before anything was seen."""
        if method != "max":
            raise SuiteError(
                f'a max calibrator has no method {method!r}; describe with calib_method="histogram"'
            )
        return self._calib_amax


class HistogramCalibrator(Calibrator):
    """Counts of |x| in `num_bins` equal bins from 0 to the first tensor's largest; more bins for later larger ones.

    Per tensor only. skip_zeros: zeros are not counted. Tensors of zeros before the first other are counted in the
    first bin. Counts are int64, so they are exact where NVIDIA's float32 ones stop at 16,777,216.
    """

    def __init__(
        self,
        num_bits: int = 8,
        axis: Axis = None,
        unsigned: bool = False,
        num_bins: int = 2048,
        *,
        skip_zeros: bool = False,
    ) -> None:
        super().__init__(num_bits, axis, unsigned)
        if axis is not None:
            raise SuiteError(f"a histogram calibrator is per tensor, got axis {axis}; use a max calibrator")
        if type(num_bins) is not int or not 2 <= num_bins <= MOST_BINS:
            raise SuiteError(
                f"num_bins {num_bins!r} is out of range; use a whole number from 2 to {MOST_BINS}"
            )
        self._num_bins, self._skip_zeros = num_bins, skip_zeros
        self.reset()

    def reset(self) -> None:
        self._zeros = 0  # seen while there were no edges yet
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._edges = torch.zeros(1)
        self._device = torch.device("cpu")

    @torch.no_grad()
    def collect(self, x: Tensor) -> None:
        """Count the magnitudes of `x`. Raises SuiteError as above, and where `x` is 8192 times the first and more."""
        x = x.detach().float().abs().flatten()
        if self._skip_zeros:
            x = x[x != 0]
        self._device = x.device
        largest = x.max().cpu() if x.numel() else torch.zeros(())
        if not torch.isfinite(largest):
            raise not_finite(Observer.of)
        if largest > self._edges[-1]:
            self._grow(largest)
        if not len(self._counts):
            self._zeros += x.numel()
            return
        for part in torch.split(x, EXACT):
            counts = torch.histc(part, len(self._counts), 0, float(self._edges[-1]))
            self._counts += counts.to("cpu", torch.int64)

    def _grow(self, largest: Tensor) -> None:
        if not len(self._counts):
            self._edges = torch.linspace(0, float(largest), self._num_bins + 1)
            self._counts = torch.zeros(self._num_bins, dtype=torch.int64)
            self._counts[0] = self._zeros
            return
        width = self._edges[1].double()
        bins = int(torch.ceil(largest.double() / width))
        if bins > MOST_BINS:
            raise SuiteError(
                f"a value of {float(largest):g} needs {bins} bins as wide as the first tensor's, {float(width):g}; "
                "calibrate on a batch first that is typical"
            )
        self._edges = torch.arange(0, (bins + 0.5) * float(width), float(width))
        # Were the last edge rounded below the largest value, histc would pass over that value.
        self._edges[-1] = self._edges[-1].clamp_min(largest)
        self._counts = torch.cat([self._counts, self._counts.new_zeros(bins - len(self._counts))])

    def compute_amax(
        self, method: str, *, stride: int = 1, start_bin: int = 128, percentile: float = 99.99
    ) -> Tensor | None:
        """The amax, of shape [] on the device of the last tensor; None before anything was seen, 0 after only zeros.

        "entropy": the edge, from `start_bin` on each `stride`-th, of least divergence (range_search), the last if
        several. "mse": the middle of a bin, of the same, of least expected squared error, the first if several.
        "percentile": the lower edge of the bin in which the share of values seen reaches `percentile` (0 to 100).
        """
        check_choice("method", method, ("entropy", "mse", "percentile"))
        if not len(self._counts):
            return torch.zeros((), device=self._device) if self._zeros else None
        if method == "percentile":
            return self._percentile(percentile).to(self._device)
        if not (
            type(start_bin) is type(stride) is int and stride >= 1 and 1 <= start_bin < len(self._counts)
        ):
            raise SuiteError(
                f"start_bin {start_bin!r} with stride {stride!r} leaves none of {len(self._counts)} bins to try; "
                "use a start_bin from 1 to below the number of bins and a stride from 1"
            )
        counts = self._counts.double()
        if method == "mse":
            middles = (self._edges[1:] + self._edges[:-1]) / 2
            grid = Grid(self.num_bits, not self.unsigned)
            amax = least_error(middles, middles[start_bin::stride], grid, counts=counts)
        else:
            # From the widest down, so that of equals the widest is taken.
            cuts = torch.arange(start_bin, len(counts) + 1, stride).flip(0)
            levels = 1 << (self.num_bits - 1 + self.unsigned)
            amax = self._edges[least_divergence(counts, cuts, levels)]
        return amax.to(self._device)

    def _percentile(self, percentile: float) -> Tensor:
        if not 0 <= percentile <= 100:
            raise SuiteError(f"percentile {percentile!r} is out of range; use 0 to 100, such as 99.99")
        # In shares, as NVIDIA does: a sum that falls short of 1 by a rounding puts 100 on the last edge.
        return self._edges[bin_reaching(self._counts / self._counts.sum().double(), percentile / 100)]
