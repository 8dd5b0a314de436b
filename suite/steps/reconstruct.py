"""Rounding that is learned, unit by unit, from what the float network gives: AdaRound, BRECQ and QDrop.

Where papers and the authors' code differ, this follows the code: beta falls linearly, the error is squared, not
weighted by Fisher information (BRECQ, arXiv 2102.05426), a unit's input is of the quantized network before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from suite.recipe import Calibration
from suite.recipe.errors import SuiteError, check_choice, check_positive, check_whole
from suite.recipe.method import Feed, Step
from suite.recipe.settings import NEW
from suite.recipe.words import counted

if TYPE_CHECKING:
    from torch import Tensor, nn

Unit = Literal["layer", "block", "network"]
Learns = Literal["rounding", "steps", "both"]


@dataclass(frozen=True)
class Reconstruct(Step):
    """Between the step that gives the inputs their ranges and Bake, which writes the rounded weights.

    unit: single layers, or residual blocks and the layers between them. A network without residual blocks has single
    layers only. "network" is all at once, so that the error is that of the logits: after another Reconstruct, to learn
    steps and biases together.
    learns: the rounding of the weights while activations are float (AdaRound, and the first phase of BRECQ), the
    steps of the activations while weights are rounded (its second), or both together (QDrop).
    drop: the part of the elements that is not rounded, other ones in each iteration, in the inputs of layers and in
    that of the unit, where the others are of the quantized network (QDrop, arXiv 2203.05740; its code has the
    probability of the opposite). Nothing is dropped at the end.
    iterations: of Adam, a unit, each with `batch` images. lr: of the rounding. step_lr: of the logarithm of a step,
    bias_lr of the biases, and weight_step_lr of the logarithms of the weights' scales, where 0 leaves them; these fall
    to zero along a half cosine. The authors take 20,000 iterations at 1e-3 and 4e-5, which is absolute there;
    they learn neither biases nor scales of weights. The latter is Genie's (arXiv 2212.04780), whose 1e-4 is absolute.
    strength: of the regularizer that pushes each weight to an integer, after `warmup`, a part of the iterations, with
    an exponent that falls from `beta`'s first to its second.
    seed: of the images in each batch and of what is dropped.
    views: learn on so many random crops and mirrored copies of each calibration image, as a training sees it; 0: on
    the images as they are. BRECQ's and QDrop's code learn on training images with one augmentation each.
    fisher: the error of each element of a block's output counts by how much the logits depend on it, as BRECQ's paper
    has it and its code offers; without it, as that code is run, all count alike.
    bfloat16: while learning, layers multiply in bfloat16, which is fast where the processor has units for it and slow
    elsewhere. What is learned, and the errors that are recorded and decide, are float32.
    A unit whose error ends above that of rounding to nearest is rounded to nearest.
    """

    unit: Unit = "block"
    learns: Learns = "both"
    drop: float = 0.0
    iterations: int = 1000
    batch: int = 32
    lr: float = 3e-2
    step_lr: float = 1e-3
    bias_lr: float = 0.0
    strength: float = 0.01
    warmup: float = 0.2
    beta: tuple[float, float] = (20.0, 2.0)
    seed: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    fisher: bool = field(default=False, metadata=NEW)
    bfloat16: bool = field(default=False, metadata=NEW)
    weight_step_lr: float = field(default=0.0, metadata=NEW)
    views: int = field(default=0, metadata=NEW)

    revision: ClassVar[int] = 2
    """1 took biases that an earlier Reconstruct had learned for those of the float network."""
    takes_long: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("unit", self.unit, get_args(Unit))
        check_choice("learns", self.learns, get_args(Learns))
        if self.fisher and self.unit != "block":
            raise SuiteError(f"fisher weighs the outputs of blocks; unit is {self.unit!r}, use unit='block'")
        check_whole(self, 1, iterations=self.iterations, batch=self.batch)
        check_positive(self, lr=self.lr, step_lr=self.step_lr)
        check_whole(self, 0, views=self.views)
        rates = self.strength, self.bias_lr, self.weight_step_lr
        if not (
            0 <= self.drop < 1 and 0 <= self.warmup < 1 and all(0 <= rate < float("inf") for rate in rates)
        ):
            raise SuiteError(
                f"drop and warmup are fractions, strength, bias_lr and weight_step_lr finite and not negative: got "
                f"drop {self.drop}, warmup {self.warmup}, strength {self.strength}, bias_lr {self.bias_lr}, "
                f"weight_step_lr {self.weight_step_lr}"
            )
        if len(self.beta) != 2 or not 1 <= self.beta[1] <= self.beta[0] < float("inf"):
            raise SuiteError(
                f"beta is the first and the last exponent of the regularizer, which falls and is at least 1, as "
                f"(20.0, 2.0); got {self.beta}"
            )
        if self.batch > (have := self.calibration.images * max(1, self.views)):
            raise SuiteError(
                f"a reconstruction draws batches of {counted(self.batch, 'image')}, but the calibration has only "
                f"{have}; give more images, or a smaller batch"
            )

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where it cannot be traced, and where two units have a layer together."""
        from suite.quantizers.layers import LAYERS, quantize
        from suite.reconstruction.units import check_apart, check_divides, parts_of

        check_divides(model)
        held = quantize(model, LAYERS, lambda first: None, lambda: None)
        check_apart(parts_of(held, self.unit))

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself. Keeps `reconstruction-LEARNS.json`: the units, and their errors before and after.

        Raises SuiteError where the network cannot be traced, where its weights are rounded already, where two units
        have a layer together, for fewer images than a batch, and where a unit gives inf or NaN or no tensor of the
        batch.
        """
        import torch

        from suite.reconstruction.network_learning import Reconstruction
        from suite.reconstruction.unit_learning import Settings

        names = Settings.__dataclass_fields__
        settings = Settings(**{name: getattr(self, name) for name in names})
        given = feed.views(self.calibration, self.views) if self.views else feed.batches(self.calibration)
        images = torch.cat(list(given))
        units = Reconstruction(model, settings).run(images, feed.saved(), feed.save)
        feed.keep(f"reconstruction-{self.learns}.json", {"format": 1, "units": units})
        return model
