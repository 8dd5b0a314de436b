"""Which option each group of layers takes, so that the summed cost is least within limits: integer programming.

Every group takes one of the same options; an option has a cost and uses whole numbers of resources, such as bits.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from suite.recipe.errors import SuiteError

Option = tuple[int, int]
"""Bits of weights and of inputs."""

LARGEST = 1e6
"""What the largest cost becomes for the solver, which takes sums that differ by less than 1e-6 for equal."""

SECONDS = 600.0
"""After which the solver gives up: what it found by then depends on the machine. A ResNet-50 takes one or two."""


@dataclass(frozen=True)
class Resource:
    """`used` by each group at each option, whole numbers [groups, options], of which there are at most `limit`.

    unit: what the numbers are divided by for people; words: what they then are.
    """

    used: NDArray[np.int64]
    limit: float
    unit: float = 1.0
    words: str = ""

    def of(self, choice: Sequence[int]) -> int:
        """What a choice uses."""
        return int(self.used[np.arange(len(choice)), list(choice)].sum())

    def holds(self, choice: Sequence[int]) -> bool:
        """Whether a choice is within the limit; the last digits of a limit that was computed do not count."""
        return self.of(choice) <= self.limit * (1 + 1e-9)


def check_possible(resources: Sequence[Resource]) -> None:
    """Raise SuiteError, with the least that is possible, where no choice is within a limit.

    The narrowest option uses least of every resource, so that to look at each by itself is enough.
    """
    for resource in resources:
        least = int(resource.used.min(axis=1).sum())
        if least > resource.limit * (1 + 1e-9):
            raise SuiteError(
                f"no assignment of widths has {resource.words} {resource.limit / resource.unit:.4g}; the least "
                f"possible is {least / resource.unit:.6g}: raise the budget or allow narrower widths"
            )


def least_cost(costs: NDArray[np.float64], resources: Sequence[Resource]) -> tuple[int, ...]:
    """The option of each group of the least summed cost, by HiGHS; the same for the same numbers.

    costs: finite, [groups, options]. Raises SuiteError where no choice is within the limits, and after SECONDS.
    """
    check_possible(resources)
    groups, options = costs.shape
    if not groups:
        return ()
    scale = float(np.abs(costs).max()) / LARGEST or 1.0
    one_each = np.kron(np.eye(groups), np.ones(options))
    constraints = [LinearConstraint(one_each, 1, 1)]
    for resource in resources:
        limit = max(resource.limit, 1.0)
        constraints.append(LinearConstraint(resource.used.ravel()[None] / limit, -np.inf, 1 + 1e-9))
    for _ in range(100):
        found = milp(
            costs.ravel() / scale,
            integrality=np.ones(groups * options),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0, "time_limit": SECONDS},
        )
        if found.status != 0:
            raise SuiteError(
                f"the widths were not found: {found.message}; allow fewer widths or another budget"
            )
        taken = np.asarray(found.x).reshape(groups, options).argmax(axis=1)
        choice = tuple(int(option) for option in taken)
        if all(resource.holds(choice) for resource in resources):
            return choice
        # The solver's tolerance let through what is just above a limit: this choice is ruled out.
        row = np.zeros((1, groups * options))
        row[0, np.arange(groups) * options + taken] = 1
        constraints.append(LinearConstraint(row, -np.inf, groups - 1))
    raise SuiteError("a hundred assignments in a row are just above a budget; change it a little")


def drawn(
    options: Sequence[Option], resources: Sequence[Resource], groups: int, seed: int
) -> tuple[int, ...]:
    """A random option for each group, within the limits, none of which could be widened and all others kept.

    Options are drawn evenly; then random groups are narrowed until the limits hold, and random ones widened as long as
    any can be. Raises SuiteError where no choice is within the limits.
    """
    check_possible(resources)
    generator = random.Random(seed)
    choice = [generator.randrange(len(options)) for _ in range(groups)]
    while not all(resource.holds(choice) for resource in resources):
        moves = [
            (group, option)
            for group in range(groups)
            for option in range(len(options))
            if _is_below(options[option], options[choice[group]])
        ]
        group, option = generator.choice(moves)
        choice[group] = option
    while True:
        wider = [
            (group, option)
            for group in range(groups)
            for option in range(len(options))
            if _is_below(options[choice[group]], options[option])
            and all(resource.holds([*choice[:group], option, *choice[group + 1 :]]) for resource in resources)
        ]
        if not wider:
            return tuple(choice)
        group, option = generator.choice(wider)
        choice[group] = option


def _is_below(one: Option, other: Option) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def never_rising(costs: Mapping[int, float]) -> dict[int, float]:
    """Costs by bits, none below zero and none above that of fewer bits, as ModelOpt takes them: a wider tensor costs
    no more.

    >>> never_rising({4: 1.5, 2: 3.0, 3: 1.0, 8: -0.5})
    {2: 3.0, 3: 1.0, 4: 1.0, 8: 0.0}
    """
    found: dict[int, float] = {}
    least = float("inf")
    for bits in sorted(costs):
        least = min(least, max(costs[bits], 0.0))
        found[bits] = least
    return found
