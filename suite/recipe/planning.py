"""Plans: every stage once, each after what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from suite.recipe.errors import SuiteError
from suite.recipe.serialize import replaced
from suite.recipe.stages import Recipe, Stage, Training


def over_ranks(stage: Stage, world_size: int) -> Stage:
    """The stage, and what it starts from, with every training shared by `world_size` ranks."""
    if isinstance(stage, Training):
        return replace(stage, sgd=replace(stage.sgd, world_size=world_size))
    if isinstance(stage, Recipe):
        start = over_ranks(stage.start, world_size)
        method = replaced(stage.method, Training, lambda teacher: over_ranks(teacher, world_size))
        if stage.trains_by:
            method = replace(method, feed=replace(stage.trains_by, world_size=world_size))
        before = stage.continues and over_ranks(stage.continues, world_size)
        return replace(stage, start=start, method=method, continues=before)  # type: ignore[arg-type]
    return stage


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
    return tuple(stages) if pattern is None else plan(only(stages, pattern))


def only(stages: Sequence[Stage], pattern: str) -> list[Stage]:
    """Those stages themselves, without what they start from."""
    wanted = f"*{pattern.lower()}*"
    chosen = [s for s in stages if fnmatch(s.name.lower(), wanted) or s.key.startswith(pattern)]
    if not chosen:
        shown = "\n  ".join(sorted({stage.name for stage in stages})[:40])
        raise SuiteError(f"no stage matches --only {pattern!r}; there are\n  {shown}")
    return chosen
