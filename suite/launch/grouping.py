"""Which stages share one process, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from suite.recipe import Dataset, Pretrained, Recipe, Stage
from suite.recipe.planning import float_stage_of

Job = tuple[Stage, ...]


def jobs(stages: Sequence[Stage], parts: int, short: int = 0) -> list[Job]:
    """Stages, which are in plan order, in jobs, each behind those that it needs: one that trains, or that another
    needs, is a job of its own; light ones of the same float stage share up to `parts` jobs, so that all workers have
    some.

    short: a recipe that trains on one rank with no more passes of images than this, and needs nothing but its float
    stage, counts as light: to start Python for it takes about as long.
    """
    result: list[Job] = []
    light: dict[str, list[Stage]] = {}
    needed = {one.key for stage in stages for one in stage.needs}
    for stage in stages:
        is_light = not isinstance(stage, Pretrained) and (not stage.trains_by or _is_short(stage, short))
        if stage.key in needed or not is_light:
            result.append((stage,))
        else:
            light.setdefault(stage.needs[0].key, []).append(stage)
    for together in light.values():
        result += [tuple(together[part::parts]) for part in range(min(parts, len(together)))]
    return result


def _is_short(stage: Stage, short: int) -> bool:
    alone = isinstance(stage, Recipe) and stage.world_size == 1 and len(stage.needs) == 1
    return alone and image_passes(stage) <= short


def image_passes(stage: Stage) -> int:
    """How many images a stage sends through its network, a backward pass counted as two: its cost, roughly."""
    train, test = Dataset.IMAGES.get(float_stage_of(stage).dataset.name, Dataset.IMAGES["cifar10"])
    if stage.trains_by:
        return stage.trains_by.epochs * (3 * train + test)
    calibration = stage.method.calibrates_on if isinstance(stage, Recipe) else None
    return test + (2 * calibration.images if calibration else 0)
