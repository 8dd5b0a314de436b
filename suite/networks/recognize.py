"""Which of the suite's networks a checkpoint is of, by the shapes of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from suite.networks.checkpoint_files import State, fitted, weights_of
from suite.recipe import Network
from suite.recipe.errors import SuiteError
from suite.recipe.settings import NETWORKS

Match = tuple[Network, nn.Module, list[str]]


def matches(content: Any, file: Path) -> list[Match]:
    """Each network of the suite that takes the weights among the `content` of `file`, the model, and what had to be
    understood. Raises SuiteError where the file holds no weights.
    """
    state = weights_of(content, file, [])
    found = []
    for name in NETWORKS:
        for shortcut in ("A", "B"):
            for classes in _classes(state):
                try:
                    network = Network(name, shortcut, classes)
                    found.append((network, *fitted(network, content, file)))
                except SuiteError:
                    continue
    kept: dict[str, Match] = {}
    for match in found:
        kept.setdefault(match[0].name, match)  # a network without shortcuts takes either
    return list(kept.values())


def _classes(state: State) -> list[int]:
    """The numbers of outputs that the last layer may have: linear, or a convolution of 1x1."""
    last = [
        [value.shape[0] for value in state.values() if value.dim() == dims and 1 not in value.shape[:1]][-1:]
        for dims in (2, 4)
    ]
    return sorted({count for counts in last for count in counts})
