"""Equal ranges for all channels of a weight (DFQ, Nagel et al. 2019, arXiv 1906.04721, section 4.1).

None of source 000 to source 004 has it. Channels between two layers are scaled so that both layers' weights of the
channel have the same range, BatchNorm is folded, and then each weight has one range of least squared error for all of
its channels, which is what equal channels are for. Inputs as in `mse`. Biases are not absorbed. Other than in the
paper no channel is scaled through ReLU6, which would become ReLU, unless `relu6` is "replaced": all of MobileNetV2's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from suite.methods.scheme import Scheme
from suite.recipe import FLOAT_BITS, Calibration
from suite.recipe.errors import check_bits, check_choice, check_widths
from suite.recipe.method import Method, Relu6, Step
from suite.recipe.naming import edge_words
from suite.recipe.settings import NEW
from suite.steps import Equalize, FoldBatchNorm, LeastError, Uniform
from suite.steps.insert import Carried
from suite.steps.learned import OCTAVES


@dataclass(frozen=True)
class Equalized(Method):
    """2 to 16 bits, or 32 for float; `first_last` those of the first and the last layer, None as the rest. `per`: one
    range for a weight, or one for each of its output channels. `carried`, `image_bits`: as of Insert; `relu6`: as of
    Equalize."""

    weight_bits: int = 8
    act_bits: int = 8
    first_last: int | None = 8
    per: Literal["tensor", "channel"] = "tensor"
    feed: Calibration = field(default_factory=Calibration)
    carried: Carried = field(default="float", metadata=NEW)
    relu6: Relu6 = field(default="kept", metadata=NEW)
    image_bits: int | None = field(default=None, metadata=NEW)

    name: ClassVar[str] = "equalized"
    batch_norm: ClassVar[str] = "folded"
    revision: ClassVar[int] = 2
    """1 made ReLU6 between two layers a ReLU, and searched the range of a weight over two octaves, too few at 2 bits.
    """

    def __post_init__(self) -> None:
        check_widths(self, FLOAT_BITS)
        check_choice("per", self.per, ("tensor", "channel"))
        check_bits("first_last", self.first_last, None, FLOAT_BITS)
        self.steps()

    @property
    def edges(self) -> str:  # type: ignore[override]
        """The width of the first and the last layer, and of the image where it is another."""
        return edge_words(self.first_last, self.image_bits)

    def steps(self) -> tuple[Step, ...]:
        """The ranges are made equal, BatchNorm is folded, the quantizers go in, and the weights are rounded."""
        weights = Uniform(LeastError(octaves=OCTAVES), per=self.per)
        widths, before = (self.weight_bits, self.act_bits), (*self.before(), FoldBatchNorm())
        scheme = Scheme(
            *widths,
            weights,
            first_last=self.first_last,
            before=before,
            calibration=self.feed,
            after=self.after(),
            carried=self.carried,
            image_bits=self.image_bits,
        )
        return scheme.steps()

    def before(self) -> tuple[Step, ...]:
        """Before BatchNorm is folded."""
        return (Equalize(self.relu6),)

    def after(self) -> tuple[Step, ...]:
        """After the weights are rounded."""
        return ()
