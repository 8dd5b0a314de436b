"""Which layers have to have the same width, from groups that overlap."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from torch import fx


def shared_or_added(
    nodes: Iterable[fx.Node],
    layers: Collection[fx.Node],
    is_sum: Callable[[fx.Node], bool],
    before_norm: Callable[[fx.Node], fx.Node],
) -> Iterator[list[fx.Node]]:
    """Those of `layers` that take one tensor, and those that are added, directly or as parts of a sum that is added
    again.

    What is added behind a ReLU or anything else but BatchNorm is not tied: of a ResNet's stage those blocks whose
    shortcuts carry the ReLU of the one before. Nor does HAWQ's notebook, ILP.ipynb, tie these; it ties the convolution
    of a shortcut to the first one of its block, which takes the same tensor.
    """
    of_sum: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        yield [user for user in node.users if user in layers]
        if is_sum(node):
            given = map(before_norm, node.all_input_nodes)
            added = [layer for part in given if (layer := of_sum.get(part, part)) in layers]
            if added:
                of_sum[node] = added[0]
            yield added


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
