"""What becomes of BatchNorm when a network is quantized: folded, frozen, or estimated again under quantization."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from suite.networks.graph import graph_of
from suite.recipe.errors import SuiteError


class FrozenBatchNorm(nn.BatchNorm2d):
    """Normalizes by the statistics it has, while training too; its weight and bias still train."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay as in evaluation."""
        super().train(False)
        return self


def fold(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose convolutions do the work of the BatchNorm behind them, which is gone.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, per output channel. The copy
    is a torch.fx GraphModule with the modules' names as they were. Raises SuiteError where torch.fx cannot trace it.
    """
    from torch.fx.experimental.optimization import fuse

    if reason := graph_of(model).untraced:
        raise SuiteError(
            f"BatchNorm cannot be folded: torch.fx cannot trace the network ({reason}); take 'kept', or rewrite its "
            f"forward so that it does not depend on values"
        )
    return fuse(model.eval())


def freeze(model: nn.Module) -> nn.Module:
    """`model` itself, each BatchNorm a FrozenBatchNorm."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FrozenBatchNorm
    return model.train(model.training)


def estimate_again(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """`model` itself, each BatchNorm's statistics the mean of what it meets on `batches`, behind quantized layers."""
    torch.optim.swa_utils.update_bn(batches, model)
    return model
