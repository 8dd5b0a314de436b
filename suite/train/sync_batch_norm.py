"""BatchNorm over the images of all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from suite.process.ranks import Ranks
from suite.quantizers.batch_norm import FrozenBatchNorm


def synchronize_batch_norm(model: nn.Module, ranks: Ranks) -> nn.Module:
    """`model` with each BatchNorm normalizing by the images of all ranks together; weights and buffers stay."""
    if ranks.world_size == 1:
        return model
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and not isinstance(module, FrozenBatchNorm):
            if ranks.device.type == "cuda":
                model.set_submodule(name, nn.SyncBatchNorm.convert_sync_batchnorm(module))  # type: ignore[no-untyped-call]
            else:
                module.__class__ = BatchNormOverRanks
    return model


class BatchNormOverRanks(nn.BatchNorm2d):
    """What nn.SyncBatchNorm does on GPUs, for a CPU: statistics over the images of all ranks, in float32.

    A rank's share may be empty.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = wide.new_tensor(x.numel() // x.shape[1])
        distributed.all_reduce(count)
        mean: Tensor = _SumOverRanks.apply(wide.sum((0, 2, 3))) / count  # type: ignore[no-untyped-call]
        centred = wide - mean[:, None, None]
        squares = centred.square().sum((0, 2, 3))
        variance: Tensor = _SumOverRanks.apply(squares) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * count / (count - 1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        normalized = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return (normalized * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _SumOverRanks(torch.autograd.Function):
    """The sum over all ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        total = grad[0].clone()
        distributed.all_reduce(total)
        return total
