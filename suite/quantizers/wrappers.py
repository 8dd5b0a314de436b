"""Modules around a whole model: its input is cast, or it stays on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CastInput(nn.Module):
    """A model that computes in `dtype` on an input truncated to integers where `truncate`."""

    def __init__(self, model: nn.Module, truncate: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.truncate, self.dtype = model.to(dtype), truncate, dtype

    def forward(self, x: Tensor) -> Tensor:
        x = x.trunc() if self.truncate else x
        result: Tensor = self.model(x.to(self.dtype))
        return result


class OnCpu(nn.Module):
    """A model that stays on the CPU, wherever its input lies."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x.cpu())
        return result.to(x.device)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself."""
    while isinstance(model, (CastInput, OnCpu)):
        model = model.model
    return model
