"""What a method of quantization is: a list of steps, each of which changes a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from suite.recipe.errors import SuiteError
from suite.recipe.naming import unusual_fields
from suite.recipe.settings import Calibration, Sgd

if TYPE_CHECKING:
    from torch import Tensor, nn

BatchNorm = Literal["kept", "folded", "frozen", "re-estimated"]
"""Kept: as the method has it. Folded into the convolutions before quantizing. Frozen: statistics
that stay while training. Re-estimated: statistics of the quantized network, of images cropped as for training."""

Relu6 = Literal["kept", "replaced"]
"""What becomes of a ReLU6 between two layers whose channels are equalized: it stays, and with it the scale of its
channels, or becomes a ReLU."""


class Feed(Protocol):
    """What a step may ask for. A run makes one (suite.run.feed), and so does suite.quantize() in a notebook.

    Batches are normalized images, float32 [n, channels, height, width], on the device of the model.
    """

    reference: nn.Module
    """The float network that is quantized. A step that changes what its layers see, replaces it."""

    def begin(self, step: int) -> None:
        """The step of this number begins; what is saved is its own."""

    def applied(self, step: Step, model: nn.Module) -> None:
        """A step has made `model` what it is now; a run records what that changed."""

    def untrained(self) -> nn.Module:
        """The network as it was when its training began. Raises SuiteError where that is not known."""

    def teacher(self, stage: Any) -> nn.Module:
        """The float network that a Training or a Pretrained left, for images normalized as the others are;
        None is the one that is quantized."""

    def batches(self, calibration: Calibration) -> Iterator[Tensor]:
        """The images that `calibration` draws, the same on every rank."""

    def labelled(self, calibration: Calibration) -> Iterator[tuple[Tensor, Tensor]]:
        """The same images with their labels, int64 [n]. Raises SuiteError where there are none."""

    def crops(self, calibration: Calibration) -> Iterator[Tensor]:
        """As many images, cropped and mirrored as for training: what BatchNorm's statistics are of."""

    def views(self, calibration: Calibration, count: int) -> Iterator[Tensor]:
        """The images that `calibration` draws, `count` times, each time cropped and mirrored in another way."""

    def histograms(self, calibration: Calibration) -> Any:
        """ranges.histogram.Histograms of the inputs of the layers of the network that the steps began with, which
        is the reference but where a recipe continues a training: one pass, shared by all methods."""

    def train(self, model: nn.Module, sgd: Sgd, loss: Any = None, control: Any = None) -> None:
        """Train `model` in place, by cross entropy or by `loss`, a suite.train.fit.Loss; `control` is a
        suite.train.oscillation.OscillationControl. In a run: over its ranks, recorded, and resumed where an earlier
        attempt stopped."""

    def saved(self) -> dict[str, Any] | None:
        """What an earlier attempt saved of this step; None where this is the first."""

    def save(self, state: Callable[[], dict[str, Any]], part: float, doing: str = "") -> None:
        """May be called often by a step that takes long: asks for its `state` where it is time to save it, records the
        progress, `part` of 1 and what it is `doing`, and stops the run where that was asked for. The last call has the
        state of the end and a `part` of 1."""

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep a small result of a step, such as the widths that it chose, as the artifact `name`, in JSON."""

    def measured(self, **values: float) -> None:
        """Record numbers that a step found, such as the mean width, as metrics of the run."""

    def before_rounding(self, model: nn.Module) -> None:
        """To be called by the step that rounds the weights of `model` for good, just before: the report of the layers
        compares with them."""


class Step:
    """One change to a model. Steps are frozen dataclasses, and import torch inside `apply`, where it is needed."""

    trains: Sgd | None = None
    """How the step trains the model, where it does."""
    calibration: Calibration | None = None
    """Which images the step needs, where it needs some without labels."""
    revision: ClassVar[int] = 1
    """Raised when the arithmetic changes, so that no older result is reused."""

    takes_long: ClassVar[bool] = False
    """Whether the step saves its state, so that a run that is killed in it goes on inside it."""
    chooses_widths: ClassVar[bool] = False
    """Whether the step gives layers widths that it finds itself."""
    starts_untrained: ClassVar[bool] = False
    """Whether the step begins again from the network's initial weights."""

    @property
    def needs(self) -> tuple[Any, ...]:
        """The stages (suite.recipe.Stage) whose networks the step takes from the feed, as a teacher."""
        return ()

    @property
    def sets_widths(self) -> bool:
        """Whether the step has a field `first_last`, the width of the first and the last layer, that can be set."""
        return False

    @property
    def names_layers(self) -> bool:
        """Whether the step gives layers widths by their names, which a network must have."""
        return False

    def check(self) -> None:
        """Raise SuiteError where this machine cannot do it. Asked before a sweep starts."""

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where the step cannot be applied to such a network: `model`, with any weights, which takes
        `images`. Leaves it as it was. Asked before a sweep starts, of each network that is not the suite's."""

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """The changed `model`, which may be the one given, changed in place."""
        raise NotImplementedError


class Method:
    """A way to quantize: its steps, in order. Methods are frozen dataclasses."""

    name: ClassVar[str]
    """As `k_sigma`: of the file, in tables, and in keys and records, which is why it never changes. A class of the
    user's that has none is named as its class."""
    revision: ClassVar[int] = 1
    """Raised when the arithmetic changes, so that no older result is reused."""
    edges: ClassVar[str] = "as the rest"
    """What the method itself does to the first and the last layer, for tables."""

    def __init_subclass__(cls) -> None:
        """A class without a name of its own has that of the class: MyMethod is `my_method`.

        Raises SuiteError for a field of a width without a default, which would take the property's place.
        """
        for width in ("weight_bits", "act_bits"):
            if width in vars(cls).get("__annotations__", {}) and width not in vars(cls):
                raise SuiteError(f"{cls.__name__}.{width} has no default; give it one, as `{width}: int = 8`")
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @property
    def weight_bits(self) -> int:
        """Bits of a stored weight; 32 is float."""
        raise NotImplementedError

    @property
    def act_bits(self) -> int:
        """Bits of an activation; 32 is float."""
        raise NotImplementedError

    @property
    def batch_norm(self) -> str:
        """What the method itself does to BatchNorm, for tables. A recipe may treat it only where this is "kept" or
        "trained"."""
        return "kept"

    def steps(self) -> tuple[Step, ...]:
        """What is done to a copy of the float network, in this order."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Its name and what is not as usual, but for its widths and its data: what another method that holds this one
        says of it in a name."""
        return " ".join([self.name, *unusual_fields(self)])

    @property
    def trains_by(self) -> Sgd | None:
        """How the method trains; None where it does not."""
        return next((step.trains for step in self.steps() if step.trains), None)

    @property
    def calibrates_on(self) -> Calibration | None:
        """The images that the method calibrates on; None where it needs none."""
        return next((step.calibration for step in self.steps() if step.calibration), None)
