"""Post-training quantization by a percentile of |x| (source 002, "fake-hist").

The range of each activation is a moving average (0.1 new) of the batches' 99.99th percentile of |x|, found with
kthvalue. Quantizers stand on the inputs of convolution, linear, ReLU and average pooling; weights go by their
extremes per output channel; nothing is folded. The grid is signed
also after ReLU, where half of it is never used (`unsigned_after_relu`).

Where the source misleads: it calibrates in training mode and quantizes meanwhile, so BatchNorm's statistics are
re-estimated on quantized activations without a word: many points up at 4 bits (`train_mode`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from suite.recipe import Calibration
from suite.recipe.errors import SuiteError, check_bits

if TYPE_CHECKING:
    from torch import nn

    from suite.quantize.quantizer import Mode, Quantizer


@dataclass(frozen=True)
class Percentile:
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
    revision: ClassVar[int] = 1
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("act_bits", self.act_bits)
        if not 0 < self.percentile <= 1:
            raise SuiteError(
                f"percentile {self.percentile} is out of range; use a fraction above 0 and up to 1"
            )

    @property
    def batch_norm(self) -> str:
        """Estimated again while calibrating, where that is done in training mode."""
        return "re-estimated" if self.train_mode else "kept"

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy that observes."""
        from suite.quantize.affine import Grid
        from suite.quantize.layers import LAYERS, RELU_AND_POOL, quantize
        from suite.quantize.observers import MovingPercentile
        from suite.quantize.quantizer import Quantizer, per_channel

        def activation(first: bool) -> Quantizer:
            mode: Mode = "track" if self.train_mode else "observe"
            observer = MovingPercentile(self.percentile, self.momentum)
            return Quantizer(
                Grid(self.act_bits, narrow=True), observer, mode, unsigned=self.unsigned_after_relu
            )

        weight_mode: Mode = "dynamic" if self.train_mode else "observe"
        kinds = LAYERS if self.layers_only else LAYERS + RELU_AND_POOL
        prepared = quantize(model, kinds, activation, lambda: per_channel(self.weight_bits, weight_mode))
        return prepared.train(self.train_mode)

    def convert(self, model: nn.Module) -> nn.Module:
        """The model with rounded weights and settled ranges."""
        from suite.quantize.layers import bake

        return bake(model)
