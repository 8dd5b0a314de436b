"""Which layers have to have the same width, and which widths are declared."""

from __future__ import annotations

from collections.abc import Sequence

from suite.recipe.errors import SuiteError

Widths = dict[str, tuple[int, int]]
"""(weight bits, input bits) by layer; 32 is float."""


def fixed(declared: Widths, tied: Sequence[Sequence[str]]) -> Widths:
    """The widths that are declared, and those of the layers that are tied to such.

    Raises SuiteError where tied layers have different ones."""
    found = dict(declared)
    for group in tied:
        widths = {name: declared[name] for name in group if name in declared}
        if len(set(widths.values())) > 1:
            words = ", ".join(f"{name} w{weight}a{act}" for name, (weight, act) in widths.items())
            raise SuiteError(
                f"layers that take one tensor or are added need the same widths, but {words} are declared; give all "
                f"of {', '.join(group)} the same, or none"
            )
        if widths:
            found |= dict.fromkeys(group, next(iter(widths.values())))
    return found


def free_groups(names: Sequence[str], tied: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The layers `names` in groups of the same widths, in their order."""
    group_of = {name: tuple(group) for group in tied for name in group}
    return list(dict.fromkeys(group_of.get(name, (name,)) for name in names))
