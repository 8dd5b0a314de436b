"""The ranges of the channels between two layers are made equal, before anything is quantized."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, get_args

from suite.recipe.errors import check_choice
from suite.recipe.method import Feed, Relu6, Step
from suite.recipe.settings import NEW

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Equalize(Step):
    """Cross-layer equalization (DFQ, arXiv 1906.04721), before Insert, with BatchNorm folded or not.

    Along chains of layers of which each gives its output to the next alone, through functions that keep a scale, such
    as ReLU; never across an addition. Of use where a weight has one range for all channels.
    relu6: "kept" leaves channels in front of a ReLU6 as they are, since it clips at 6 whatever the scale, and the
    float function stays the same. "replaced" makes it a ReLU, as the paper does for MobileNetV2; then outputs change
    wherever a value was clipped.
    """

    relu6: Relu6 = field(default="kept", metadata=NEW)

    revision: ClassVar[int] = 2
    """1 made every ReLU6 between two layers a ReLU."""

    def __post_init__(self) -> None:
        check_choice("relu6", self.relu6, get_args(Relu6))

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where it cannot be traced, and where it has no two layers to equalize."""
        from suite.quantizers.equalize import check_equalizes

        check_equalizes(model, self.relu6)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself, and a copy becomes the reference. Keeps `equalized.json`: the pairs of layers.

        Raises SuiteError where the network cannot be traced, and where it has no two layers to equalize.
        """
        import copy

        from suite.quantizers.equalize import check_equalizes, equalize

        check_equalizes(model, self.relu6)
        pairs = equalize(model, self.relu6)
        feed.reference = copy.deepcopy(model)
        feed.keep("equalized.json", {"format": 1, "pairs": [list(pair) for pair in pairs]})
        return model
