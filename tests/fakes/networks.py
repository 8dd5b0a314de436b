"""Small networks with statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fakes import tiny
from suite import networks
from suite.recipe import Network


def lived_in() -> nn.Module:
    """A small ResNet-20 with random weights and lived-in BatchNorm statistics, evaluating."""
    torch.manual_seed(0)
    model = networks.build(Network("resnet20"))
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32))
    return model.eval()


def two_blocks() -> nn.Module:
    """The smallest network with residual blocks, in the same state: 7 layers of 4 and 8 channels."""
    torch.manual_seed(0)
    model = tiny.network()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 16, 16))
    return model.eval()


class Branching(nn.Module):
    """A forward that depends on values, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return self.linear(x) if x.sum() > 0 else self.linear(-x)  # type: ignore[no-any-return]
