"""What becomes of BatchNorm: folded into the convolutions, frozen, or its statistics estimated again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from suite.recipe import Calibration
from suite.recipe.method import Feed, Step

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class FoldBatchNorm(Step):
    """The convolutions do the work of the BatchNorm behind them, which is gone. Before quantizers are inserted."""

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where torch.fx cannot trace it."""
        from suite.quantizers.batch_norm import check_folds

        check_folds(model)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """A copy of `model` without BatchNorm, in evaluation mode."""
        from suite.quantizers.batch_norm import fold

        return fold(model)


@dataclass(frozen=True)
class FreezeBatchNorm(Step):
    """BatchNorm normalizes by the statistics it has, while training too; its weight and bias still train."""

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        from suite.quantizers.batch_norm import freeze

        return freeze(model)


@dataclass(frozen=True)
class ReestimateBatchNorm(Step):
    """BatchNorm's statistics become those of the quantized network, on images cropped as for training.

    As AdaQuant and BRECQ's predecessors do (arXiv 2006.10518, "batch normalization tuning").
    """

    calibration: Calibration = field(default_factory=Calibration)

    revision: ClassVar[int] = 2
    """1 took, in a run, as many images as the method calibrates on, whatever `calibration` was."""

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        from suite.quantizers.batch_norm import estimate_again

        return estimate_again(model, feed.crops(self.calibration))
