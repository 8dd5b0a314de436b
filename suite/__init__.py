"""What does quantizing a network really cost? Sweeps of quantization methods, each run recorded.

In Python: `suite.quantize(network, method, images)` applies one method, of `suite.methods`, to any network;
`suite.load(key)` gives the network of a finished stage; a sweep is made of the types `Recipe`, `Training`,
`Pretrained`, `Network`, `Dataset`, `Sgd`, `Precision`, `Calibration` and `Method`, which `suite.recipe` defines.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "Calibration",
    "Dataset",
    "Method",
    "Network",
    "Precision",
    "Pretrained",
    "Recipe",
    "Sgd",
    "Training",
    "load",
    "quantize",
]

WHERE = {"load": "suite.formats.finished", "quantize": "suite.run.in_memory"}
"""The modules of the two functions; they import torch, which planning and status do not wait for."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(WHERE.get(name, "suite.recipe")), name)
    raise AttributeError(f"module 'suite' has no attribute {name!r}")
