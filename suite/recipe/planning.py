"""Plans: every stage once, each after what it needs; and the float stage of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from suite.recipe.errors import SuiteError
from suite.recipe.serialize import replaced
from suite.recipe.settings import Sgd
from suite.recipe.stages import Pretrained, Recipe, Stage, Training
from suite.recipe.words import counted


def over_ranks(stage: Stage, world_size: int) -> Stage:
    """The stage, and what it starts from, with every training shared by `world_size` ranks.

    Raises SuiteError for a method whose training is in none of its fields, nor in what they hold.
    """
    shared: Stage = replaced(stage, Sgd, lambda sgd: replace(sgd, world_size=world_size))
    if shared.world_size != (world_size if stage.trains_by else 1):
        raise SuiteError(
            f"{stage.name} trains on {counted(shared.world_size, 'rank')} whatever is asked for, since its Sgd is in "
            f"no field of its method; give the method a field that holds it"
        )
    return shared


def float_stage_of(stage: Stage) -> Training | Pretrained:
    """The float network that a stage is, or that a recipe starts from."""
    start = stage.start if isinstance(stage, Recipe) else stage
    assert isinstance(start, (Training, Pretrained))
    return start


def plan(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Every stage once, each after what it needs, else in the order first met."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for needed in stage.needs:
            visit(needed)
        ordered.setdefault(stage.key, stage)

    for stage in stages:
        visit(stage)
    return tuple(ordered.values())


def matching(stages: Sequence[Stage], pattern: str | None) -> tuple[Stage, ...]:
    """The stages whose name holds `pattern` (with * and ? as wildcards) or whose key begins with it, and all
    that they start from. Raises SuiteError where nothing matches."""
    return tuple(stages) if pattern is None else plan(matching_alone(stages, pattern))


def matching_alone(stages: Sequence[Stage], pattern: str) -> list[Stage]:
    """Those stages themselves, without what they start from. Raises SuiteError where nothing matches."""
    wanted = f"*{pattern.lower()}*"
    chosen = [s for s in stages if fnmatch(s.name.lower(), wanted) or s.key.startswith(pattern)]
    if not chosen:
        names = sorted({stage.name for stage in stages})
        shown = "\n  ".join([*names[:40], *[f"and {len(names) - 40} more"] * (len(names) > 40)])
        raise SuiteError(f"no stage matches --only {pattern!r}; there are\n  {shown}")
    return chosen
