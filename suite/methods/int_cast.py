"""A state_dict cast straight to integers (source 000, its first attempt): "all of the weights turn to zero".

Trained weights lie mostly between -1 and 1, so truncation leaves zeros; the accuracy is chance at every width. It is
here because the source reports it, as the floor that a method must leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from suite.recipe.errors import check_bits

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class IntCast:
    """Each parameter truncated toward zero and saturated at signed `weight_bits`; the widths are 2 to 16."""

    weight_bits: int = 8

    name: ClassVar[str] = "int_cast"
    revision: ClassVar[int] = 1
    act_bits: ClassVar[int] = 32
    feed: ClassVar[None] = None
    batch_norm: ClassVar[str] = "quantized"

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)

    def prepare(self, model: nn.Module) -> nn.Module:
        """A copy with integer parameters."""
        from suite.quantize.affine import Grid
        from suite.quantize.layers import finite_copy, set_weight

        model, grid = finite_copy(model), Grid(self.weight_bits)
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                cast = parameter.detach().trunc().clamp(grid.quant_min, grid.quant_max)
                limits = grid.limits(cast.new_ones(()), cast.new_zeros(()))
                set_weight(module, cast, self.weight_bits, name, limits)
        return model

    def convert(self, model: nn.Module) -> nn.Module:
        """Nothing is left to do."""
        return model
