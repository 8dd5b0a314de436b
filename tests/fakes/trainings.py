"""Small trainings."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fakes import tiny
from suite.data import datasets
from suite.data.images import Images
from suite.recipe import Dataset, Network, Precision, Sgd, Training

TINY = Network(f"{tiny.__file__}:network")
TINY_IMAGES = Dataset(f"{tiny.__file__}:images", (0.5,) * 3, (0.25,) * 3, size=8)
"""Of which a stage takes a moment: 72 images to train on, 40 to test."""
QUICK = Training(TINY, TINY_IMAGES, Sgd(1, 6, 0.05, flip=False, pad=1, precision=Precision("O0")))
"""12 steps."""


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(self.norm(self.conv(x)).relu().mean((2, 3)))
        return result


def small() -> nn.Module:
    torch.manual_seed(0)
    return Small()


def digits(count: int) -> Images:
    whole = datasets.load(Dataset("digits"), "train", Path(), torch.device("cpu"))
    return Images(whole.pixels[:count], whole.labels[:count], whole.dataset)
