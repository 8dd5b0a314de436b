"""Networks whose quantizers learn."""

from __future__ import annotations

import torch
from torch import nn

from fakes.methods import calibrated_on
from suite.recipe.method import Method
from suite.run import pipeline
from suite.run.in_memory import InMemoryFeed
from suite.steps import TrainOn


def learning(method: Method, network: nn.Module, size: int = 8) -> nn.Module:
    """A copy of the network as the method trains it, before the first step; images are `size` pixels wide."""
    x = torch.randn(64, 3, size, size, generator=torch.Generator().manual_seed(3))
    steps = list(calibrated_on(method, 64, 32).steps())
    last = next(number for number, step in enumerate(steps) if isinstance(step, TrainOn))
    return pipeline.quantized(steps[:last], InMemoryFeed(network, x)).train()
