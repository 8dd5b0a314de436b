"""Another method, with a width of its own for each layer: the cheapest within a budget of size and bit operations.

None of source 000 to source 004 has it. A layer costs what its rounding does to the loss, by a score; integer
programming makes the sum least (HAWQ-V3, Yao et al. 2021, arXiv 2011.10680; NVIDIA ModelOpt's auto_quantize has the
score by gradients). Layers that take one tensor, or are added, have the same widths. By default the network is as
large, and takes as many bit operations, as the other method makes it at its own widths.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from suite.methods.mse import Mse
from suite.recipe import Calibration, Sgd
from suite.recipe.errors import SuiteError
from suite.recipe.method import Method, Step
from suite.recipe.serialize import DATA_FIELDS
from suite.recipe.settings import NEW
from suite.steps import AssignWidths, Insert, LayerTimes
from suite.steps.assign_widths import By
from suite.steps.measure_sensitivity import IMAGES, around_insert


@dataclass(frozen=True)
class Mixed(Method):
    """of: the method, at the widths of the budget: `Mixed(Adaround(4, 4))`. Its first and last layer keep the width
    that it gives them.

    by, widths, apart, size_bits, bops_per_mac, latency_ms, times: of AssignWidths; the first two budgets are those of
    the method's widths where they are not given, and 0 is none. draw_seed: of random widths. score_images: training
    images of the scores, no more than calibrate; probes: random vectors for every 8 of them, for the trace of the
    Hessian.
    feed, calibration: the data of the method; what `of` brings where they are not given.
    """

    of: Method = field(default_factory=lambda: Mse(4, 4))
    by: By = "hessian"
    widths: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    apart: bool = True
    size_bits: float | None = None
    bops_per_mac: float | None = None
    score_images: int = 256
    probes: int = 2
    draw_seed: int = 0
    feed: Sgd | Calibration | None = None
    calibration: Calibration | None = None
    latency_ms: float = field(default=0.0, metadata=NEW)
    times: LayerTimes = field(default=LayerTimes(), metadata=NEW)

    name: ClassVar[str] = "mixed"

    @property
    def revision(self) -> int:  # type: ignore[override]
        """1 and 2 had Hutchinson's estimator of the Hessian's trace, 1 for all tensors together."""
        return 3 if self.by == "hessian" else 1

    def __post_init__(self) -> None:
        budgets = {"size_bits": self.weight_bits, "bops_per_mac": self.weight_bits * self.act_bits}
        for name, usual in budgets.items():
            given = getattr(self, name)
            object.__setattr__(self, name, float(usual if given is None else given))
        self._take_data()
        self.steps()

    def _take_data(self) -> None:
        """What `of` brings becomes the method's own, and what it does not take is left out: names tell it as of any
        method, and runs that differ by its seed are one configuration."""
        usual = type(self.of)()
        for name in DATA_FIELDS:
            theirs = getattr(self.of, name, None)
            if theirs is None:
                object.__setattr__(self, name, None)
                continue
            if getattr(self, name) is None:
                object.__setattr__(self, name, theirs)
            object.__setattr__(self, "of", replace(self.of, **{name: getattr(usual, name)}))  # type: ignore[type-var]

    @property
    def weight_bits(self) -> int:
        return self.of.weight_bits

    @property
    def act_bits(self) -> int:
        return self.of.act_bits

    @property
    def edges(self) -> str:  # type: ignore[override]
        """As the method has them."""
        return self.of.edges

    @property
    def batch_norm(self) -> str:
        return self.of.batch_norm

    def steps(self) -> tuple[Step, ...]:
        """Those of the method, and the choice of widths once its quantizers are in."""
        steps = self._with_data().steps()
        before, ranges = around_insert(steps, self.of.name)
        insert = before[-1]
        assert isinstance(insert, Insert)
        if insert.image_bits is not None:
            raise SuiteError(
                f"image_bits {insert.image_bits} of {self.of.name}: where widths are chosen, the image has that of "
                f"the first layer's input; leave it out"
            )
        return (*before, self._assign(insert, ranges), *steps[len(before) :])

    def _with_data(self) -> Method:
        given: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        theirs = {name: given[name] for name in DATA_FIELDS if getattr(self.of, name, None) is not None}
        changed: Method = replace(self.of, **theirs)  # type: ignore[type-var]
        return changed

    def _assign(self, insert: Insert, ranges: tuple[Step, ...]) -> AssignWidths:
        drawn = next((step.calibration for step in ranges if step.calibration), None)
        images = min(self.score_images, drawn.images) if drawn else self.score_images
        assert self.size_bits is not None and self.bops_per_mac is not None
        return AssignWidths(
            by=self.by,
            widths=self.widths,
            apart=self.apart,
            size_bits=self.size_bits,
            bops_per_mac=self.bops_per_mac,
            first_last=insert.first_last,
            by_layer=insert.by_layer,
            ranges=ranges,
            images=replace(IMAGES, images=images, seed=drawn.seed if drawn else 0),
            probes=self.probes,
            seed=self.draw_seed,
            latency_ms=self.latency_ms,
            times=self.times,
        )
