"""Finished recipes of a small network with a residual block, to export."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from fakes.missing import missing
from suite.ranks import Ranks
from suite.recipe import Dataset, Network, Precision, Recipe, Sgd, Training, plan
from suite.recipe.method import Method
from suite.record.files import Folders
from suite.run.stage import run
from suite.sweeps.stored import save_sweep

NETWORK = '''
import torch
from torch import nn


class Small(nn.Module):
    """A stem, a block that halves the side and doubles the channels, average pooling, a linear layer."""

    def __init__(self, classes):
        super().__init__()
        self.stem, self.bn0, self.relu0 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.short = nn.Conv2d(4, 8, 1, 2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(8, classes)

    def forward(self, x):
        x = self.relu0(self.bn0(self.stem(x)))
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        x = self.relu2(out + self.short(x))
        return self.linear(torch.flatten(self.pool(x), 1))
'''

RESHAPING = '''
import torch
from torch import nn
from torch.nn import functional as F


class Small(nn.Module):
    """It reads shapes, and means the last two dimensions: forms that many networks have."""

    def __init__(self, classes):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.conv2 = nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(4, 2, 3, 2, 1)
        self.means, self.hidden, self.pooled = nn.Linear(8, 8), nn.Linear(32, 8), nn.Linear(4, 8)
        self.linear = nn.Linear(8, classes)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        pooled = F.avg_pool2d(x, x.size()[3])
        flat = self.conv2(x).relu()
        flat = flat.reshape(flat.shape[0], -1)
        means = self.means(torch.relu(self.conv1(x)).mean((2, 3)))
        return self.linear(means + F.relu(self.hidden(flat)) + self.pooled(pooled.view(x.size(0), -1)))
'''

SGD = Sgd(epochs=1, batch=64, lr=0.05, flip=False, pad=1, precision=Precision("O0"))


class Finished:
    """A runs folder with the float network; each method is run once, when it is first asked for."""

    def __init__(self, folder: Path, text: str = NETWORK) -> None:
        self.folder, self.folders = folder, Folders(folder / "runs", folder / "data")
        (folder / "small_net.py").write_text(text)
        network = Network(f"{folder / 'small_net.py'}:Small", classes=10)
        self.start = Training(network, Dataset("digits", size=8), SGD)
        run(self.start, Ranks(), self.folders)
        self.done: dict[str, Recipe] = {}

    def recipe(self, method: Method, **how: str) -> Recipe:
        """The finished recipe of this method; every one is in the sweep "small"."""
        recipe = Recipe(self.start, method, **how)  # type: ignore[arg-type]
        if recipe.key not in self.done:
            run(recipe, Ranks(), self.folders)
            self.done[recipe.key] = recipe
            save_sweep(self.folders.runs, "small", {}, plan([*self.done.values()]))
        return recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One runs folder with a trained network for the tests of a module."""
    return Finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def needs_onnx() -> None:
    """Skip where the ONNX packages are not installed."""
    if find_spec("onnx") is None:
        missing("onnx is not installed; pip install '.[export]'")
