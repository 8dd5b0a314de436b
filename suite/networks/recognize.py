"""Which network a checkpoint is of, by the names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suite.networks import build
from suite.networks.checkpoint_files import State, fitted, understood, weights_of
from suite.recipe import Network
from suite.recipe.errors import SuiteError
from suite.recipe.settings import NETWORKS, RESNETS

Match = tuple[Network, nn.Module, list[str]]


def matches(content: Any, file: Path, name: str = "") -> list[Match]:
    """Each network that takes the weights among the `content` of `file`, the model, and what had to be understood:
    the network `name`; without one those of the suite and, where none of these does, the classifiers of torchvision.

    Raises SuiteError where the file holds no weights, and where they are not those of `name`.
    """
    classes = _classes(weights_of(content, file, []))
    if name:
        return _of_name(name, classes, content, file)
    found = list(_fitting(NETWORKS, classes, content, file))
    return found or list(_fitting(_of_torchvision(), classes, content, file))


def _of_name(name: str, classes: list[int], content: Any, file: Path) -> list[Match]:
    found = list(_fitting((name,), classes, content, file))
    if not found:
        network = Network(name, "B", (classes or [0])[-1])
        found = [(network, *fitted(network, content, file))]  # which says what does not fit
    return found


def _fitting(names: tuple[str, ...], classes: list[int], content: Any, file: Path) -> Iterator[Match]:
    for network in _candidates(names, classes):
        try:
            with torch.device("meta"):  # names and shapes, in no time
                understood(build(network), network, content, file, [])
        except SuiteError:  # it does not fit
            continue
        except (
            NotImplementedError
        ):  # RegNet reads a tensor's values when it is made; it is tried where it is named
            continue
        yield network, *fitted(network, content, file)


def _candidates(names: tuple[str, ...], classes: list[int]) -> Iterator[Network]:
    for name in names:
        for shortcut in ("A", "B") if name in RESNETS[:4] else ("B",):
            for count in classes:
                yield Network(name, shortcut, count)


def _of_torchvision() -> tuple[str, ...]:
    from suite.networks.torchvision_import import torchvision

    return tuple(f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models))


LAST = re.compile(r"(^|\.)(fc|linear|heads?|classifier|logits)\b")
"""What people name the last layer."""


def _classes(state: State) -> list[int]:
    """The numbers of outputs that the last layer may have: linear, or a convolution of 1x1. It is the last of those
    that are named so; where none is, of all."""
    named = {name: value for name, value in state.items() if LAST.search(name)} or state
    last = [
        [value.shape[0] for value in named.values() if value.dim() == dims and 1 not in value.shape[:1]][-1:]
        for dims in (2, 4)
    ]
    return sorted({count for counts in last for count in counts})
