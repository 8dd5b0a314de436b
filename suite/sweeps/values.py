"""The values of a stage as JSON has them: of classes of the suite and, where they are imported, of the user's."""

from __future__ import annotations

import dataclasses
import json
from functools import cache, lru_cache
from typing import Any

from suite import steps
from suite.methods import find as find_methods
from suite.recipe import (
    Calibration,
    Damping,
    Dataset,
    Freezing,
    Network,
    Precision,
    Pretrained,
    Recipe,
    Sgd,
    Training,
    user_files,
)
from suite.recipe.errors import SuiteError
from suite.recipe.serialize import type_name

VALUES: tuple[type, ...] = (
    *(Dataset, Network, Precision, Sgd, Calibration, Damping, Freezing, Training, Pretrained, Recipe),
    *(getattr(steps, name) for name in steps.__all__),
)


def from_json(data: Any, any_revision: bool = False) -> Any:
    """The value that `to_json` wrote: classes of `recipe` and of `methods`, and no others.

    Raises SuiteError for an unknown type or field and, unless `any_revision` is read, for a method or a step that has
    another revision today.
    """
    if isinstance(data, list):
        return tuple(from_json(item, any_revision) for item in data)
    if not isinstance(data, dict):
        return data
    if data.get("type") in ("Training", "Pretrained"):
        return _float_stage(json.dumps(data))
    return _value(data, any_revision)


@lru_cache(maxsize=1000)
def _float_stage(text: str) -> Any:
    """The value of a stage that many recipes start from: made once, by its text, in which 1 and 1.0 differ."""
    return _value(json.loads(text))


def _value(data: dict[str, Any], any_revision: bool = False) -> Any:
    kind = _by_name((*VALUES, *find_methods().values())).get(name := str(data.get("type")))
    if user_files.is_reference(name):
        kind = user_files.load(user_files.Reference(name, str(data.get("type_sha256"))))
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise SuiteError(
            f"a stage holds the unknown type {data.get('type')!r}; it was written by another version"
        )
    varies = isinstance(getattr(kind, "revision", None), property)
    if not any_revision and not varies:
        _check_revision(data, kind)
    own = ("type", "type_sha256", "revision")
    fields = {name: from_json(item, any_revision) for name, item in data.items() if name not in own}
    try:
        value = kind(**fields)
    except (TypeError, AttributeError) as error:  # of a missing field, or of a value of another kind
        raise SuiteError(f"a stage of another version: {error}; plan the sweep again") from None
    if not any_revision and varies:
        _check_revision(data, value)
    return value


def _check_revision(data: dict[str, Any], present: Any) -> None:
    """Raise SuiteError unless the record has the revision of today's value or class."""
    revision = getattr(present, "revision", None)
    if data.get("revision") != revision:
        raise SuiteError(
            f"{data['type']} has revision {revision} here, but the record says {data.get('revision')}; plan the sweep "
            f"again"
        )


@cache
def _by_name(kinds: tuple[type, ...]) -> dict[str, type]:
    return {type_name(kind): kind for kind in kinds}
