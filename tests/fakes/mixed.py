"""A network small enough to score in no time, and a feed that keeps what a step leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from suite.methods.mixed import Mixed
from suite.recipe import Calibration, Dataset, Method, Network, Pretrained
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized

START = Pretrained(Network(), Dataset("digits"), "weights.pt", "0" * 64)
CALIBRATION = Calibration(16, 8)

LAYERS = ("conv", "left", "right", "linear")


class Tied(nn.Module):
    """`left` and `right` take the same tensor and are added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.norm(self.conv(x)), inplace=True)
        x = nn.functional.relu(self.left(x) + self.right(x), inplace=True)
        result: Tensor = self.linear(x.mean((2, 3)))
        return result


def tied() -> nn.Module:
    torch.manual_seed(0)
    return Tied().eval()


def images(count: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 10


class Keeping(InMemoryFeed):
    """Remembers artifacts and metrics."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept: dict[str, Any] = {}
        self.values: dict[str, float] = {}

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        self.kept[name] = content

    def measured(self, **values: float) -> None:
        self.values |= values


def mixed(base: Method, by: Any = "gradient", **more: Any) -> Mixed:
    """With few widths and images."""
    return Mixed(base, by, **{"widths": (2, 4, 8), "score_images": 16, **more})


def chosen(method: Method, network: nn.Module | None = None) -> tuple[nn.Module, dict[str, Any], Keeping]:
    """The model, the content of widths.json, and the feed."""
    x, labels = images()
    feed = Keeping(network or tied(), x, labels)
    model = quantized(method.steps(), feed)
    return model, feed.kept["widths.json"], feed


def widths(kept: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {layer["name"]: (layer["weight_bits"], layer["input_bits"]) for layer in kept["layers"]}
