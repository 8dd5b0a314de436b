"""BatchNorm over the images of all ranks, with one collective forward and one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from suite.networks.graph import BATCH_NORM
from suite.networks.own_forward import has_own_forward
from suite.quantizers.batch_norm import FrozenBatchNorm
from suite.ranks import Ranks
from suite.recipe.errors import SuiteError


def synchronize_batch_norm(model: nn.Module, ranks: Ranks) -> nn.Module:
    """`model` with each BatchNorm normalizing by the images of all ranks together; weights and buffers stay."""
    if ranks.world_size == 1:
        return model
    for module in model.modules():
        if isinstance(module, BATCH_NORM) and not isinstance(module, FrozenBatchNorm):
            module.__class__ = BatchNormOverRanks
    return model


def check_synchronizes(model: nn.Module) -> None:
    """Raise SuiteError for a BatchNorm that cannot normalize by the images of all ranks: one with a forward of its
    own, which computes more than that."""
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORM) and has_own_forward(module):
            raise SuiteError(
                f"{name} is a {type(module).__name__}, a BatchNorm with a forward of its own, which cannot normalize "
                f"by the images of all ranks; train with Sgd(sync_batch_norm=False) or world_size=1"
            )


class BatchNormOverRanks(BATCH_NORM):
    """Statistics over the images of all ranks, in float32, on a CPU and on GPUs. A rank's share may be empty.

    nn.SyncBatchNorm lets the host wait for the device three times a layer and cannot be compiled.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        shape = wide.shape
        if wide.dim() != 4:  # of BatchNorm1d, [n, channels] or [n, channels, length], and of BatchNorm3d
            wide = (wide.flatten(2) if wide.dim() > 2 else wide.unsqueeze(2)).unsqueeze(3)
        weight = wide.new_ones(self.num_features) if self.weight is None else self.weight
        bias = wide.new_zeros(self.num_features) if self.bias is None else self.bias
        normalized, mean, variance, count = _Normalize.apply(wide, weight, bias, self.eps)  # type: ignore[no-untyped-call]
        self._update(mean, variance * count / (count - 1))
        result: Tensor = normalized.reshape(shape).to(x.dtype)
        return result

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """The running statistics, where there are any: by `momentum`, or, where that is None, their mean so far."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.running_mean is None or self.running_var is None:
            return
        part: Any = self.momentum
        if part is None:
            part = 1 / self.num_batches_tracked.to(self.running_mean.dtype)  # type: ignore[union-attr]
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
        self.running_var.lerp_(variance.to(self.running_var.dtype), part)

    def _check_input_dim(self, input: Tensor) -> None:
        """Of any dimensions from two on."""


class _Normalize(torch.autograd.Function):
    """(normalized, mean, variance, count): the last three of all ranks, [channels] and [1].

    Each rank puts its mean, its sum of squared differences from it and its count into a row of its own; the rows are
    joined as Chan, Golub and LeVeque have it (1979), which loses no digits.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels, own = x.shape[1], x.numel() // x.shape[1]
        rows = x.new_zeros(distributed.get_world_size(), 2 * channels + 1)
        own_mean = x.sum((0, 2, 3)) / max(1, own)
        own_squares = (x - own_mean[:, None, None]).square().sum((0, 2, 3))
        rows[distributed.get_rank()] = torch.cat([own_mean, own_squares, x.new_full((1,), own)])
        distributed.all_reduce(rows)
        means, squares, counts = rows.split([channels, channels, 1], dim=1)  # type: ignore[no-untyped-call]
        count = counts.sum(0)
        mean = (means * counts).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        scaled = (x - mean[:, None, None]) * (inverse * weight)[:, None, None]
        return scaled + bias[:, None, None], mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        grad = grads[0]
        normalized = (x - mean[:, None, None]) * inverse[:, None, None]
        own_bias, own_weight = grad.sum((0, 2, 3)), (grad * normalized).sum((0, 2, 3))
        sums = torch.cat([own_bias, own_weight])
        distributed.all_reduce(sums)
        of_bias, of_weight = (sums / count).chunk(2)
        centred = grad - of_bias[:, None, None] - normalized * of_weight[:, None, None]
        return centred * (weight * inverse)[:, None, None], own_weight, own_bias, None
