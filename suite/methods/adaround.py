"""Learned rounding, layer by layer (AdaRound, Nagel et al. 2020, arXiv 2004.10568).

None of source 000 to source 004 has it. BatchNorm is folded. Weights are affine per output channel, in the range of
least error |x - q|^2.4, as in BRECQ's code; inputs per tensor in their range of least squared error. Each layer learns
which way its weights are rounded, so that behind its activation it gives what it gives in the float network, while
activations are float. What is added is added in float; with `carried` "rounded" an identity shortcut carries what was
rounded for the layers beside it, as in BRECQ's and QDrop's code.

An input that may be negative, as the image and the narrow ends of a MobileNet's blocks, has a grid that is symmetric
about zero; BRECQ's and QDrop's code gives it a zero point, as `zero_points` does here. Their images are not quantized.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from suite.methods.scheme import Scheme
from suite.recipe import FLOAT_BITS, Calibration
from suite.recipe.errors import check_bits, check_widths
from suite.recipe.method import Method, Step
from suite.recipe.naming import edge_words
from suite.recipe.settings import NEW
from suite.steps import FoldBatchNorm, LeastError, Reconstruct, Uniform
from suite.steps.insert import Carried
from suite.steps.reconstruct import Learns, Unit
from suite.steps.weight_range import AffineLeastError

FASTEST = 0.3
"""The highest learning rate of the rounding, where iterations are few."""


@dataclass(frozen=True)
class Adaround(Method):
    """2 to 16 bits, or 32 for float; `first_last` those of weight and input of the first and the last layer, None as
    the rest. `iterations`, `batch` and `bfloat16` as of Reconstruct; the authors take 10,000 to 20,000 iterations.
    The fewer they are, the higher the learning rate of the rounding: `travel` of them all, at most `FASTEST`.
    zero_points: inputs that may be negative have one, so that all 2^bits levels are in their range. views and
    weight_step_lr: as of Reconstruct. carried, image_bits: as of Insert."""

    weight_bits: int = 4
    act_bits: int = 4
    first_last: int | None = 8
    iterations: int = 1000
    batch: int = 32
    feed: Calibration = field(default_factory=Calibration)
    bfloat16: bool = field(default=False, metadata=NEW)
    zero_points: bool = field(default=False, metadata=NEW)
    views: int = field(default=0, metadata=NEW)
    weight_step_lr: float = field(default=0.0, metadata=NEW)
    carried: Carried = field(default="float", metadata=NEW)
    image_bits: int | None = field(default=None, metadata=NEW)

    name: ClassVar[str] = "adaround"
    batch_norm: ClassVar[str] = "folded"
    revision: ClassVar[int] = 2
    """1 summed the squared error in another order, of `adaround` and of all that learn as it does."""
    travel: ClassVar[float] = 30.0
    """Iterations times learning rate: how far alpha, which Adam moves by about its rate, can go. 0.03 at 1,000
    iterations, 0.0015 at 20,000, where the authors have 0.001. With less, few weights change sides."""

    def __post_init__(self) -> None:
        check_widths(self, FLOAT_BITS)
        check_bits("first_last", self.first_last, None, FLOAT_BITS)
        self.steps()

    @property
    def edges(self) -> str:  # type: ignore[override]
        """The width of the first and the last layer, and of the image where it is another."""
        return edge_words(self.first_last, self.image_bits)

    def steps(self) -> tuple[Step, ...]:
        """Quantizers go in and get their ranges; what is to be learned is learned; the weights are rounded."""
        weights = Uniform(AffineLeastError(), per="channel", grid="affine")
        widths = self.weight_bits, self.act_bits
        scheme = Scheme(
            *widths,
            weights,
            first_last=self.first_last,
            before=(FoldBatchNorm(),),
            calibration=self.feed,
            carried=self.carried,
            image_bits=self.image_bits,
        )
        if self.zero_points:
            scheme = replace(scheme, inputs=Uniform(LeastError(), grid="affine"))
        *insert, bake = scheme.steps()
        return (*insert, *self.reconstructions(), bake)

    def reconstructions(self) -> tuple[Reconstruct, ...]:
        """One, of the rounding."""
        return (self.reconstruct("layer", "rounding"),)

    def reconstruct(self, unit: Unit, learns: Learns, part: float = 1.0, drop: float = 0.0) -> Reconstruct:
        """A step with the method's settings and a `part` of its iterations."""
        iterations = max(1, round(part * self.iterations)) if self.iterations > 0 else self.iterations
        lr = min(FASTEST, self.travel / max(1, iterations))
        return Reconstruct(
            unit,
            learns,
            drop,
            iterations,
            self.batch,
            lr,
            seed=self.feed.seed,
            calibration=self.feed,
            bfloat16=self.bfloat16,
            weight_step_lr=0.0 if learns == "steps" else self.weight_step_lr,
            views=self.views,
        )
