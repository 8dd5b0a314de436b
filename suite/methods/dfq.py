"""Fold BatchNorm, equalize, round, correct biases (DFQ, Nagel et al. 2019, arXiv 1906.04721).

None of source 000 to source 004 has it. As `equalized`, and then the biases are corrected by what BatchNorm says of
the inputs. Other than in the paper the ranges of activations come from calibration images, which also decide whether a
correction is applied, and biases are not absorbed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from suite.methods.equalized import Equalized
from suite.recipe.method import Step
from suite.steps import CorrectBias


@dataclass(frozen=True)
class Dfq(Equalized):
    """Fields as of `equalized`."""

    name: ClassVar[str] = "dfq"

    def after(self) -> tuple[Step, ...]:
        """The biases."""
        return (CorrectBias("analytic", calibration=self.feed),)
