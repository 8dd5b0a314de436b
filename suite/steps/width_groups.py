"""Which layers have to have the same width, and which widths are declared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from suite.recipe.errors import SuiteError

if TYPE_CHECKING:
    from torch import nn

Widths = dict[str, tuple[int, int]]
"""(weight bits, input bits) by layer; 32 is float."""


def with_one_weight(network: nn.Module, names: Iterable[str]) -> list[tuple[str, ...]]:
    """Those of the layers `names` that have one weight together, which is rounded and stored once."""
    found: dict[int, tuple[str, ...]] = {}
    for name in names:
        weight = id(network.get_submodule(name).weight)
        found[weight] = (*found.get(weight, ()), name)
    return [group for group in found.values() if len(group) > 1]


def fixed(declared: Widths, tied: Sequence[Sequence[str]]) -> Widths:
    """The widths that are declared, and those of the layers that are tied to such.

    Raises SuiteError where tied layers have different ones."""
    found = dict(declared)
    for group in tied:
        widths = {name: declared[name] for name in group if name in declared}
        if len(set(widths.values())) > 1:
            words = ", ".join(f"{name} w{weight}a{act}" for name, (weight, act) in widths.items())
            raise SuiteError(
                f"layers that take one tensor, have one weight or are added need the same widths, but {words} are "
                f"declared; give all of {', '.join(group)} the same, or none"
            )
        if widths:
            found |= dict.fromkeys(group, next(iter(widths.values())))
    return found


def free_groups(names: Sequence[str], tied: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The layers `names` in groups of the same widths, in their order."""
    group_of = {name: tuple(group) for group in tied for name in group}
    return list(dict.fromkeys(group_of.get(name, (name,)) for name in names))
