"""Network in Network (Lin et al. 2013, arXiv 1312.4400) with BatchNorm, for 32x32 images, as the code that source 001
describes trains it (666DZY666/micronet, 91.01 % on CIFAR-10 in float).

Parameter names are those of that code's checkpoints: model.N.conv and model.N.bn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYERS = ((192, 5), (160, 1), (96, 1)), ((192, 5), (192, 1), (192, 1)), ((192, 3), (192, 1), (0, 1))
"""(channels, side of the kernel) of the convolutions before each pooling; 0 channels stand for the classes."""


class ConvBatchNormRelu(nn.Module):
    """A convolution that keeps the size, BatchNorm, and ReLU: also of the last, which gives the classes."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.bn(self.conv(x)))
        return result


class NetworkInNetwork(nn.Module):
    """Three times three convolutions, two poolings between them that halve the side, and the mean of each class's map.

    Input [N, 3, H, W], output [N, classes].
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        channels = 3
        for number, part in enumerate(LAYERS):
            modules += [nn.MaxPool2d(3, 2, padding=1)] * bool(number)
            for width, side in part:
                modules.append(ConvBatchNormRelu(channels, width or classes, side))
                channels = width
        self.model = nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.model(x), 1)
