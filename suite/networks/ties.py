"""Which layers have to have the same width, from groups that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def joined(names: Sequence[str], groups: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """The groups of two and more of `names` that hang together, those that share a name made one; all in the order of
    `names`.

    >>> joined("abcde", ["ab", "ce", "bc", "d"])
    (('a', 'b', 'c', 'e'),)
    """
    group_of = {name: {name} for name in names}
    for group in groups:
        whole = set[str]().union(*(group_of[name] for name in group))
        group_of |= dict.fromkeys(whole, whole)
    found = dict.fromkeys(tuple(sorted(group, key=names.index)) for group in group_of.values())
    return tuple(group for group in found if len(group) > 1)
