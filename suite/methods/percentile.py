"""Post-training quantization by a percentile of |x| (source 002, "fake-hist").

The range of each activation is a moving average (0.1 new) of the batches' 99.99th percentile of |x|, found with
kthvalue. Quantizers are on the inputs of convolution, linear, ReLU and average pooling; weights go by their extremes
per output channel; nothing is folded. The grid is signed also after ReLU, where half of it is never used
(`unsigned_after_relu`). The percentile of all images at once, from histograms that methods share, is
Scheme(inputs=Uniform(Percentile())).

Where the source misleads: it calibrates in training mode and quantizes meanwhile, so BatchNorm's statistics are
re-estimated on quantized activations, which it does not mention: many points up at 4 bits (`train_mode`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from suite.methods.histogram import batch_by_batch
from suite.recipe import Calibration
from suite.recipe.errors import check_fraction, check_widths
from suite.recipe.method import Method, Step
from suite.steps import MovingPercentile


@dataclass(frozen=True)
class Percentile(Method):
    """`percentile` is a fraction; `momentum` weighs the new batch; 2 to 16 bits."""

    weight_bits: int = 8
    act_bits: int = 8
    percentile: float = 0.9999
    momentum: float = 0.1
    train_mode: bool = False
    layers_only: bool = False
    unsigned_after_relu: bool = False
    feed: Calibration = field(default_factory=Calibration)

    name: ClassVar[str] = "percentile"

    def __post_init__(self) -> None:
        check_widths(self)
        check_fraction("percentile", self.percentile)
        check_fraction("momentum", self.momentum)

    @property
    def batch_norm(self) -> str:
        """Estimated again while calibrating, where that is done in training mode."""
        return "re-estimated" if self.train_mode else "kept"

    def steps(self) -> tuple[Step, ...]:
        """Batch by batch, as the source calibrates."""
        return batch_by_batch(self, MovingPercentile(self.percentile, self.momentum))
