"""Every method with a short configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import suite
from suite import methods
from suite.data.images import Images
from suite.recipe import Calibration, Dataset, Method, Precision, Sgd
from suite.recipe.serialize import DATA_FIELDS
from suite.run import pipeline
from suite.run.in_memory import InMemoryFeed
from suite.steps import Insert

KINDS = methods.find()


SHORT = Sgd(epochs=1, batch=32, lr=0.01, precision=Precision("O0"))


def images(count: int = 64) -> Images:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 10, Dataset("digits", size=16))


def make(name: str, bits: int) -> Any:
    named = {field.name for field in dataclasses.fields(KINDS[name])}
    method = KINDS[name](
        **{field: bits for field in ("weight_bits", "act_bits", "first_last") if field in named}
    )
    if method.trains_by:
        method = dataclasses.replace(method, feed=SHORT)
    return method


def calibrated_on(method: Any, count: int, batch: int) -> Any:
    """The method, with `count` calibration images in batches of `batch` where it calibrates."""
    held = [name for name in DATA_FIELDS if isinstance(getattr(method, name, None), Calibration)]
    fields: dict[str, Any] = {name: Calibration(count, batch) for name in held}
    if hasattr(method, "iterations"):
        fields |= {"iterations": 2, "batch": 4}
    if hasattr(method, "score_images"):
        fields |= {"score_images": 8, "widths": (2, 8)}
    return dataclasses.replace(method, **fields)


def quantized(method: Any, network: nn.Module) -> nn.Module:
    """What suite.quantize makes of the network with `images()`."""
    data = images()
    x = data.normalized(data.pixels)
    return suite.quantize(network, calibrated_on(method, 64, 32), x, data.labels, untrained=network)


def inserted(method: Method, network: nn.Module) -> nn.Module:
    """A copy of the network with the method's quantizers in it, which have seen nothing."""
    steps = [step for step in method.steps() if isinstance(step, Insert)]
    return pipeline.quantized(steps, InMemoryFeed(network))


EACH = pytest.mark.parametrize("name", sorted(KINDS))

LIKE = {
    "adaround": ("best", "brecq", "qdrop"),
    "lsq": ("binary_relax", "dorefa", "ewgs", "lsq_plus", "pact", "parq"),
    "qat_symmetric": ("qat_asymmetric",),
    "linear": ("int_cast",),
    "mse": ("bias_correction", "entropy"),
    "histogram": ("percentile",),
}
"""By a method those that go the same way through the steps: `make test` shows by the first what holds of all, and
`make test-long` by each. A new method is in neither, and is tried at once."""
LIKE_ANOTHER = {name for others in LIKE.values() for name in others}
ONE_OF_A_KIND = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n in LIKE_ANOTHER)) for n in sorted(KINDS)]
)
