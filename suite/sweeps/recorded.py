"""A recipe whose method is of a user's file, as its record has it: who reads a sweep runs no code of that file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suite.recipe import Pretrained, Recipe, Sgd, Stage, Training
from suite.recipe.errors import SuiteError
from suite.recipe.method import Method
from suite.recipe.serialize import to_json
from suite.recipe.user_files import is_reference
from suite.sweeps.values import from_json


def has_own_types(data: Any) -> bool:
    """Whether the JSON of a stage holds a value of a class of a user's file, which only its import makes."""
    if isinstance(data, list):
        return any(map(has_own_types, data))
    if not isinstance(data, dict):
        return False
    return is_reference(str(data.get("type"))) or any(map(has_own_types, data.values()))


def of_training(stage: Stage) -> dict[str, Any]:
    """What a record holds beside the stage itself of a recipe whose method is of a user's file, and trains."""
    if not isinstance(stage, Recipe) or not stage.trains_by or not has_own_types(to_json(stage)):
        return {}
    return {"trains": to_json(stage.trains_by)}


@dataclass(frozen=True)
class RecordedMethod(Method):
    """What tables and MLflow want to know of a method beside its parameters. It has no steps, and cannot be run."""

    weight_bits: int = 32
    act_bits: int = 32


class RecordedRecipe(Recipe):
    """A recipe with the parameters and the training that were recorded."""

    recorded: dict[str, Any]
    trains: Sgd | None

    needed: tuple[Stage, ...]

    @property
    def params(self) -> dict[str, Any]:
        return self.recorded

    @property
    def needs(self) -> tuple[Stage, ...]:
        return self.needed

    @property
    def trains_by(self) -> Sgd | None:
        return self.trains


def recorded_recipe(row: Mapping[str, Any]) -> RecordedRecipe | None:
    """The recipe of a row of a sweep's record; None where the row is of something else."""
    content = row["stage"]
    if content.get("type") != "Recipe" or has_own_types([content.get("start"), row.get("trains")]):
        return None
    start, trains = from_json(content.get("start")), from_json(row.get("trains"))
    if not isinstance(start, (Training, Pretrained)) or not isinstance(trains, (Sgd, type(None))):
        return None
    try:
        params = dict(row["params"])
        widths = int(params["weight_bits"]), int(params["act_bits"])
    except (KeyError, TypeError, ValueError):
        raise SuiteError(f"the record of {row['key']!r} lacks its parameters; plan the sweep again") from None
    made = object.__new__(RecordedRecipe)
    beside = {name: content.get(name) for name in ("batch_norm", "edge_bits")}
    needed = (start, *(Stage() for _ in row["needs"][1:]))  # who reads the record sets their keys
    vars(made).update(start=start, method=RecordedMethod(*widths), recorded=params, trains=trains, **beside)
    vars(made).update(needed=needed)
    return made
