"""The calibrator that answers the largest magnitude."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suite.pytorch_quantization.calib.calibrator import Calibrator
from suite.pytorch_quantization.tensor_quant import Axis, reduce_amax
from suite.ranges.observers import Observer
from suite.recipe.errors import SuiteError, not_finite


class MaxCalibrator(Calibrator):
    """The largest magnitude of all that was seen, in the shape of reduce_amax.

    track_amax: keep the one of each tensor too, in `amaxs`. `collect` raises SuiteError for a tensor that holds inf or
    NaN, or whose amax has another shape than those before.
    """

    def __init__(
        self, num_bits: int = 8, axis: Axis = None, unsigned: bool = False, track_amax: bool = False
    ) -> None:
        super().__init__(num_bits, axis, unsigned)
        self._track_amax = track_amax
        self._amaxs: list[Any] = []
        self._calib_amax: Tensor | None = None

    @property
    def amaxs(self) -> list[Any]:
        """The amax of each tensor, float32 numpy arrays in the shape of reduce_amax; `reset` keeps them, as NVIDIA's.

        Raises SuiteError where they were not kept.
        """
        if not self._track_amax:
            raise SuiteError("the amax of each tensor was not kept; make the calibrator with track_amax=True")
        return self._amaxs

    def collect(self, x: Tensor) -> None:
        seen = reduce_amax(x, self._axis)
        if not bool(seen.isfinite().all()):
            raise not_finite(Observer.of)
        largest = seen
        if self._calib_amax is not None:
            if seen.shape != self._calib_amax.shape:
                raise SuiteError(
                    f"the amax's shape changed from {list(self._calib_amax.shape)} to {list(seen.shape)} within a "
                    f"calibration; along axis {self._axis} all tensors must be of one size"
                )
            largest = torch.maximum(seen, self._calib_amax)
        self._calib_amax = largest
        if self._track_amax:
            self._amaxs.append(seen.cpu().numpy())

    def reset(self) -> None:
        self._calib_amax = None

    def compute_amax(self, method: str = "max") -> Tensor | None:
        """The largest magnitude, or None before anything was seen."""
        if method != "max":
            raise SuiteError(
                f'a max calibrator has no method {method!r}; describe with calib_method="histogram"'
            )
        return self._calib_amax
