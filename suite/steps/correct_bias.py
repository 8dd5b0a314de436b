"""Biases make up for what rounding moved in the mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from suite.recipe import Calibration
from suite.recipe.errors import check_choice
from suite.recipe.method import Feed, Step

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class CorrectBias(Step):
    """Bias correction (DFQ, arXiv 1906.04721, section 4.2), after Bake.

    how: "empirical" takes the mean over the calibration images of each output, quantized minus float, one layer after
    the other with all quantizers on. "analytic" computes it from BatchNorm's weight and bias and what rounding moved
    in the weights, for the layers whose input comes from BatchNorm, through ReLU or not; the deviation is the
    magnitude of BatchNorm's weight, which AIMET's code does not take.
    guarded: a layer's correction that makes the squared error of its residual block larger is not applied. A layer
    that several blocks call is corrected once, by its first call, and the error is that behind the last of them.
    """

    how: Literal["empirical", "analytic"] = "empirical"
    guarded: bool = True
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        check_choice("how", self.how, ("empirical", "analytic"))

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where it cannot be traced, and where "analytic" has no layer to correct."""
        from suite.reconstruction.bias_correction import check_expected
        from suite.reconstruction.units import check_divides

        check_divides(model)
        if self.how == "analytic":
            check_expected(model)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself. Keeps `bias_correction.json`: the layers, and their units' errors before and after.

        Raises SuiteError where the network cannot be traced, where a unit gives inf or NaN, and where "analytic" has
        no layer to correct.
        """
        import torch

        from suite.reconstruction.bias_correction import Correction, check_expected

        if self.how == "analytic":
            check_expected(feed.reference)
        images = torch.cat(list(feed.batches(self.calibration)))
        correction = Correction(model, feed.reference, self.guarded)
        shifts = correction.expected_shifts(feed.reference) if self.how == "analytic" else None
        layers = correction.run(images, shifts)
        feed.keep("bias_correction.json", {"format": 1, "layers": layers})
        return model
