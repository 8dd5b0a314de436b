"""What does quantizing a network really cost? Sweeps of quantization methods, each run recorded.

In Python: `suite.quantize(network, method, images)` applies one method, of `suite.methods`, to any network.
"""

from __future__ import annotations

from typing import Any

__all__ = ["quantize"]


def __getattr__(name: str) -> Any:
    if name == "quantize":  # imports torch, which planning and status do not wait for
        from suite.run.in_memory import quantize

        return quantize
    raise AttributeError(f"module 'suite' has no attribute {name!r}")
