"""A reconstruction of the network of fakes.residual, short, whose records are remembered."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fakes.residual import CALIBRATION, images
from suite.methods.scheme import Scheme
from suite.run.in_memory import InMemoryFeed
from suite.run.pipeline import quantized
from suite.steps import Reconstruct


class Recording(InMemoryFeed):
    """A feed that remembers what is kept and what is said."""

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__(network, x)
        self.kept: dict[str, Any] = {}
        self.doings: list[str] = []
        self.parts: list[float] = []

    def keep(self, name: str, content: Any) -> None:
        self.kept[name] = content

    def save(self, state: Any, part: float, doing: str = "") -> None:
        self.doings.append(doing)
        self.parts.append(part)


def reconstructed(
    network: nn.Module, step: Reconstruct, x: Tensor | None = None
) -> tuple[nn.Module, Recording]:
    feed = Recording(network, images() if x is None else x)
    *steps, bake = Scheme(3, 3, calibration=step.calibration).steps()
    return quantized([*steps, step, bake], feed), feed


def short(**settings: Any) -> Reconstruct:
    return Reconstruct(**{"iterations": 12, "batch": 8, "lr": 0.05, "calibration": CALIBRATION, **settings})
