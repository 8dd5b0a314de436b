"""The ranges of the channels between two layers are made equal, before anything is quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.recipe.method import Feed, Step

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Equalize(Step):
    """Cross-layer equalization (DFQ, arXiv 1906.04721), before Insert, with BatchNorm folded or not.

    Along chains of layers of which each gives its output to the next alone, through functions that keep a scale, such
    as ReLU; never across an addition. The float function stays the same. Of use where a weight has one range for all
    channels.
    """

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where it cannot be traced."""
        from suite.quantizers.equalize import check_equalizes

        check_equalizes(model)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself, and a copy becomes the reference. Keeps `equalized.json`: the pairs of layers.

        Raises SuiteError where the network cannot be traced.
        """
        import copy

        from suite.quantizers.equalize import equalize

        pairs = equalize(model)
        feed.reference = copy.deepcopy(model)
        feed.keep("equalized.json", {"format": 1, "pairs": [list(pair) for pair in pairs]})
        return model
