"""Subtracts from each bias the mean error of its layer's output after rounding (DFQ, arXiv 1906.04721, section 4.2).

None of source 000 to source 004 has it. BatchNorm is folded; each output channel of a weight has its range of least
squared error; inputs as in `mse`. A layer's correction that makes the error of its residual block larger is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from suite.methods.equalized import Equalized
from suite.recipe.errors import SuiteError
from suite.recipe.method import Step
from suite.steps import CorrectBias


@dataclass(frozen=True)
class BiasCorrection(Equalized):
    """Fields as of `equalized`, without `relu6`, for which SuiteError is raised; `how` as of CorrectBias."""

    per: Literal["tensor", "channel"] = "channel"
    how: Literal["empirical", "analytic"] = "empirical"

    name: ClassVar[str] = "bias_correction"
    revision: ClassVar[int] = 2
    """1 searched the range of a weight over two octaves, too few at 2 bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relu6 != "kept":
            raise SuiteError(
                "bias_correction equalizes nothing, so relu6 is not for it; use equalized or dfq"
            )

    def before(self) -> tuple[Step, ...]:
        """Nothing."""
        return ()

    def after(self) -> tuple[Step, ...]:
        """The biases."""
        return (CorrectBias(self.how, calibration=self.feed),)
