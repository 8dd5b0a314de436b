"""A network of two residual blocks whose additions are calls, and quantizers in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suite.methods.scheme import Scheme
from suite.recipe import Calibration
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized

CALIBRATION = Calibration(24, 24)


def images(count: int = 24) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """A residual block whose addition and last activation are calls."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + x)


class Residual(nn.Module):
    """A stem with BatchNorm, two blocks, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        result: Tensor = self.linear(x.mean((2, 3)))
        return result


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def prepared(network: nn.Module, bits: int = 3) -> nn.Module:
    """The network with quantizers that have their ranges, before its weights are rounded."""
    *steps, _ = Scheme(bits, bits, calibration=CALIBRATION).steps()
    return quantized(steps, InMemoryFeed(network, images()))
