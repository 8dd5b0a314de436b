"""A range of weights for affine grids, as reconstruction needs at low widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.recipe.errors import check_positive

if TYPE_CHECKING:
    from suite.ranges.observers import Observer


@dataclass(frozen=True)
class AffineLeastError:
    """The scale and the zero point of least error |x - q|^power (BRECQ's code: 2.4); for Uniform(grid="affine")."""

    power: float = 2.4

    def __post_init__(self) -> None:
        check_positive(self, power=self.power)

    def observer(self, axis: int | None) -> Observer:
        """What watches a weight for it."""
        from suite.ranges.affine_search import AffineLeastError as Watching

        return Watching(axis, self.power)
