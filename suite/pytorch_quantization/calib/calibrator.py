"""What all calibrators share."""

from __future__ import annotations

from torch import Tensor

from suite.pytorch_quantization.tensor_quant import Axis, check_axis
from suite.recipe.errors import check_bits


class Calibrator:
    """The tensor's grid, and `collect(x)` before `compute_amax(...)`.

    num_bits: 2 to 16. axis: see Axis. unsigned: as in a descriptor. They are kept as NVIDIA names them, `_num_bits`,
    `_axis` and `_unsigned`, and count as they are when a tensor is collected or the amax is computed.
    """

    def __init__(self, num_bits: int = 8, axis: Axis = None, unsigned: bool = False) -> None:
        check_bits("num_bits", num_bits)
        check_axis(axis)
        self._num_bits, self._axis, self._unsigned = num_bits, axis, unsigned

    def collect(self, x: Tensor) -> None:
        """Watch `x`, of any shape. Raises SuiteError where it holds inf or NaN."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all that was seen."""
        raise NotImplementedError


_Calibrator = Calibrator
"""NVIDIA's name, which calibrators of users are made from."""
