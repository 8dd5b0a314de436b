"""Clipping at two learned values."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Clip(nn.Module):
    """`inputs` clipped to two learned values (PACT, arXiv 1805.06085): each has the gradient of what it clips.

    learn_min, learn_max: whether the value takes a gradient.
    """

    def __init__(
        self,
        clip_value_min: float,
        clip_value_max: float,
        learn_min: bool = True,
        learn_max: bool = True,
    ) -> None:
        super().__init__()
        self.clip_value_min = nn.Parameter(torch.tensor(float(clip_value_min)), learn_min)
        self.clip_value_max = nn.Parameter(torch.tensor(float(clip_value_max)), learn_max)

    def forward(self, inputs: Tensor) -> Tensor:
        """Shape of `inputs`; the gradient at a bound goes to the bound."""
        below = torch.where(inputs < self.clip_value_max, inputs, self.clip_value_max)
        return torch.where(inputs > self.clip_value_min, below, self.clip_value_min)
