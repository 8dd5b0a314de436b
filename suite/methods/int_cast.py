"""A state_dict cast straight to integers (source 000, its first attempt): "all of the weights turn to zero".

Trained weights lie mostly between -1 and 1, so truncation leaves zeros; the accuracy is chance at every width. It is
here because the source reports it, as what a method must exceed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from suite.recipe.errors import check_bits
from suite.recipe.method import Feed, Method, Step

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class IntCast(Method):
    """Each parameter truncated toward zero and saturated at signed `weight_bits`; the widths are 2 to 16."""

    weight_bits: int = 8

    name: ClassVar[str] = "int_cast"
    act_bits: ClassVar[int] = 32

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)

    @property
    def batch_norm(self) -> str:
        """Its parameters are cast with the rest."""
        return "quantized"

    def steps(self) -> tuple[Step, ...]:
        """One step."""
        return (CastParameters(self.weight_bits),)


@dataclass(frozen=True)
class CastParameters(Step):
    """Every parameter becomes an integer of `bits`, sign included."""

    bits: int

    def apply(self, model: nn.Module, feed: Feed) -> nn.Module:
        """`model` itself."""
        from suite.arithmetic.affine import Grid
        from suite.quantizers.layers import set_weight

        grid = Grid(self.bits)
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                cast = parameter.detach().trunc().clamp(grid.quant_min, grid.quant_max)
                limits = grid.limits(cast.new_ones(()), cast.new_zeros(()))
                set_weight(module, cast, self.bits, name, limits)
        return model.eval()
