"""Every method with a short configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from suite import methods
from suite.data.images import Images
from suite.recipe import Dataset, Precision, Sgd

KINDS = methods.find()


SHORT = Sgd(epochs=1, batch=32, lr=0.01, precision=Precision("O0"))


def images(count: int = 64) -> Images:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 10, Dataset("digits"))


def make(name: str, bits: int) -> Any:
    named = {field.name for field in dataclasses.fields(KINDS[name])}
    method = KINDS[name](**{field: bits for field in ("weight_bits", "act_bits") if field in named})
    if isinstance(method.feed, Sgd):
        method = dataclasses.replace(method, feed=SHORT)
    return method


EACH = pytest.mark.parametrize("name", sorted(KINDS))
