"""Small networks with statistics."""

from __future__ import annotations

import torch
from torch import nn

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
