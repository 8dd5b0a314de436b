"""Small networks of torchvision's residual blocks, with statistics, evaluating."""

from __future__ import annotations

import torch
from torch import nn

from fakes.residual import images
from suite.networks.torchvision_import import torchvision


def with_statistics(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for _ in range(3):
            network(images())
    return network.eval()


def bottlenecks() -> nn.Module:
    """A stem and two of torchvision's bottlenecks of 8 channels; the shortcut of the first is a convolution."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    shortcut = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8))
    blocks = (
        torchvision.models.resnet.Bottleneck(4, 2, downsample=shortcut),
        torchvision.models.resnet.Bottleneck(8, 2),
    )
    return with_statistics(
        nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    )


def inverted() -> nn.Module:
    """A stem and three of torchvision's blocks of MobileNetV2; the second and third have a shortcut."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU6())
    blocks = [torchvision.models.mobilenetv2.InvertedResidual(4, 4, stride, 2) for stride in (2, 1, 1)]
    return with_statistics(
        nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    )
