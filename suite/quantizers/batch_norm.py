"""What becomes of BatchNorm when a network is quantized: folded, frozen, or estimated again under quantization."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from suite.networks.graph import BATCH_NORM, MULTIPLY, Tracer, graph_of
from suite.recipe.errors import SuiteError

FOLDED: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""What BatchNorm is folded into."""


class FrozenBatchNorm(BATCH_NORM):
    """Normalizes by the statistics it has, while training too; its weight and bias still train."""

    def train(self, mode: bool = True) -> Self:
        """Stay as in evaluation."""
        super().train(False)
        return self


def fold(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose convolutions do the work of the BatchNorm behind them, which is gone.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, per output channel. The copy
    is a torch.fx GraphModule with the modules' names as they were. Raises SuiteError where torch.fx cannot trace it.
    """
    check_folds(model)
    model = copy.deepcopy(model).eval()
    traced = fx.GraphModule(model, Tracer(MULTIPLY).trace(model))
    calls = {str(node.target): node for node in traced.graph.nodes if node.op == "call_module"}
    for name, norm_name in graph_of(model).conv_bn:
        layer: Any = traced.get_submodule(name)
        norm: Any = traced.get_submodule(norm_name)
        if type(layer) not in FOLDED or not norm.track_running_stats:
            continue
        folded = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        traced.set_submodule(name, folded(layer, norm))
        calls[norm_name].replace_all_uses_with(calls[name])
        traced.graph.erase_node(calls[norm_name])
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def check_folds(model: nn.Module) -> None:
    """Raise SuiteError where torch.fx cannot trace the model, so that BatchNorm cannot be folded."""
    if reason := graph_of(model).untraced:
        raise SuiteError(
            f"BatchNorm cannot be folded: torch.fx cannot trace the network ({reason}); take a method that keeps it, "
            f"or rewrite the network's forward so that it does not depend on values"
        )


def freeze(model: nn.Module) -> nn.Module:
    """`model` itself, each BatchNorm a FrozenBatchNorm."""
    for module in model.modules():
        if isinstance(module, BATCH_NORM) and not isinstance(module, FrozenBatchNorm):
            kind: Any = type(module)
            module.__class__ = _frozen(kind)
    return model.train(model.training)


@cache
def _frozen(kind: Any) -> Any:
    """The class of a frozen module of a `kind` of BatchNorm, whose forward it keeps."""
    return type(f"Frozen{kind.__name__}", (FrozenBatchNorm, kind), {})


def estimate_again(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """`model` itself, each BatchNorm's statistics the mean of what it meets on `batches`, behind quantized layers.

    batches: normalized images, float32 [n, channels, height, width].
    """
    torch.optim.swa_utils.update_bn(batches, model)
    return model
