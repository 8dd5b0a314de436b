"""Weights of convolutions clipped at k standard deviations (source 003).

    alpha = 3 std;  w / alpha clipped to -1..1;  round(|w| * (2^b - 1)) / (2^b - 1), sign back, times alpha

Where the source misleads: its b counts magnitude bits, so "4 bit" is 15 levels and a sign, 31 values, 5 bits when
stored, and "8 bit" is 9. `weight_bits` here is what is stored: the source's labels are KSigma(5) and KSigma(9). Its
alpha is that of the first convolution, for all of them (`per_layer=False`); std is of the population. The linear
layer, BatchNorm and all activations stay float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from suite.recipe.errors import SuiteError, check_bits
from suite.recipe.method import Feed, Method, Step

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class KSigma(Method):
    """`weight_bits` stored bits, sign included, 2 to 16; alpha = k * std of the layer's or the first conv's weight.

    Raises SuiteError for another width, and for a k that is not above 0.
    """

    weight_bits: int = 5
    k: float = 3.0
    per_layer: bool = False

    name: ClassVar[str] = "k_sigma"
    act_bits: ClassVar[int] = 32
    edges: ClassVar[str] = "last layer float"

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        if not self.k > 0:
            raise SuiteError(f"k must be above 0, got {self.k}")

    def steps(self) -> tuple[Step, ...]:
        """One step."""
        return (ClipAtDeviations(self.weight_bits, self.k, self.per_layer),)


@dataclass(frozen=True)
class ClipAtDeviations(Step):
    """The weights of convolutions are clipped and rounded; see KSigma."""

    bits: int
    k: float
    per_layer: bool

    def check_network(self, model: nn.Module, images: Tensor) -> None:
        """Raise SuiteError where the model has no convolution."""
        _convolutions(model)

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        from suite.quantizers.layers import set_weight

        convs = _convolutions(model)
        first = self.k * convs[0].weight.detach().std(correction=0)
        for conv in convs:
            alpha = self.k * conv.weight.detach().std(correction=0) if self.per_layer else first
            rounded = clip_and_round(conv.weight, alpha, self.bits)
            set_weight(conv, rounded, self.bits, limits=(-alpha, alpha))
        return model.eval()


def _convolutions(model: nn.Module) -> list[nn.Conv2d]:
    from torch import nn

    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not convs:
        raise SuiteError(
            "k_sigma clips the weights of nn.Conv2d, and the network has none; leave it out for this network"
        )
    return convs


def clip_and_round(w: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """`w` on the symmetric grid of 2^bits - 1 values in -alpha..alpha; alpha a scalar tensor."""
    from suite.arithmetic.affine import Grid, fake_quantize

    grid = Grid(bits, narrow=True)
    # Rounding |w| and putting the sign back is rounding w half to even: the grid is symmetric.
    scale, zero_point = grid.symmetric(alpha)
    return fake_quantize(w.detach(), scale, zero_point, grid.quant_min, grid.quant_max)
