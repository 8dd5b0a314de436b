"""A user's own files: a method, a network with functional ReLUs, and a sweep of both."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from suite.recipe import user_files

METHOD = """
from dataclasses import dataclass
from my_parts import SCALE
from suite.methods.amax import Amax

@dataclass(frozen=True)
class HalfAmax(Amax):
    scale: float = SCALE
"""

NETWORK = """
from torch import nn
from torch.nn import functional as F

class Plain(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep, self.linear = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(8, classes)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        x = F.relu(x + self.deep(x))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))

def build(classes):
    return Plain(classes)
"""

SWEEP = """
from my_methods import HalfAmax
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training

def sweep(seeds: int = 1):
    sgd = Sgd(1, 128, 0.05, pad=1, flip=False, precision=Precision("O0"))
    trainings = [Training(Network("my_net.py:build"), Dataset("digits", size=8), sgd, seed) for seed in range(seeds)]
    return [Recipe(training, HalfAmax(8, 8)) for training in trainings]
"""


def write(folder: Path) -> Path:
    """All of them in `folder`; the sweep's file."""
    (folder / "my_parts.py").write_text("SCALE = 0.5\n")
    (folder / "my_methods.py").write_text(METHOD)
    (folder / "my_net.py").write_text(NETWORK)
    (folder / "own.py").write_text(SWEEP)
    return folder / "own.py"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(user_files, "_found", {})
    monkeypatch.setattr(user_files, "_modules", {})
    mine = ("my_net", "my_methods", "my_parts", "one", "other", "project", "helpers", "methods")
    for name in [name for name in sys.modules if name.partition(".")[0] in mine]:
        monkeypatch.delitem(sys.modules, name, raising=False)
