"""A network and images of which a stage takes a moment, as a user's file has them; it imports nothing beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from torch import Tensor

from suite.networks.cifar_resnet import BasicBlock, ResNet

PAUSE_SECONDS = 0.2
WHILE = ""
COUNT = {"train": 72, "test": 40}


def network(classes: int = 10) -> ResNet:
    """Two residual blocks, of 4 and of 8 channels, the second with a convolution in its shortcut: 7 layers."""
    return ResNet(BasicBlock, (1, 1), (4, 8), "B", classes)


class Slow(ResNet):
    """One whose training takes long, and no time of a core; where WHILE names a file, as long as it is there."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and (not WHILE or os.path.exists(WHILE)):
            time.sleep(PAUSE_SECONDS)
        return super().forward(x)


def slow(classes: int = 10) -> Slow:
    return Slow(BasicBlock, (1, 1), (4, 8), "B", classes)


def images(split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Noise of ten brightnesses, 8 pixels wide, each with the label of its brightness."""
    labels = np.arange(COUNT[split]) % 10
    noise = np.random.default_rng(len(split)).integers(0, 40, (COUNT[split], 8, 8, 3))
    return (noise + 20 * labels[:, None, None, None]).astype(np.uint8), labels
