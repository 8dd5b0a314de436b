"""Values as JSON and back: the canonical form that keys are made of."""

from __future__ import annotations

import dataclasses
from typing import Any


def flat(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as scalars; a nested one or a tuple becomes its text. `feed` stays out, and so does a
    field that came later where it has its default."""
    result = {}
    for item in dataclasses.fields(value):
        content = getattr(value, item.name)
        if item.name != "feed" and not _as_before(item, content):
            plain = isinstance(content, (str, int, float, bool))
            listed = ",".join(map(str, content)) if isinstance(content, tuple) else str(content)
            result[item.name] = content if plain else listed
    return result


def _as_before(item: dataclasses.Field[Any], content: object) -> bool:
    return content == item.default and not item.metadata.get("in_key_by_default", True)


def to_json(value: Any, for_key: bool = False) -> Any:
    """Nested dataclasses as plain data, each with its `type`, a method also with its `revision`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result: dict[str, Any] = {"type": type_name(type(value))}
        if hasattr(value, "revision"):
            result["revision"] = value.revision
        for item in dataclasses.fields(value):
            content = getattr(value, item.name)
            if not for_key or (item.metadata.get("in_key", True) and not _as_before(item, content)):
                result[item.name] = to_json(content, for_key)
        return result
    if isinstance(value, tuple):
        return [to_json(item, for_key) for item in value]
    return value


TYPES = {
    "Dataset": "suite.recipe.settings",
    "Network": "suite.recipe.settings",
    "Precision": "suite.recipe.settings",
    "Sgd": "suite.recipe.settings",
    "Calibration": "suite.recipe.settings",
    "Training": "suite.recipe.stages",
    "Pretrained": "suite.recipe.stages",
    "Recipe": "suite.recipe.stages",
}
"""The module of each class that a stage is made of, beside its method. The names are in every key and in every record:
a module may move, a name may not change."""


def type_name(kind: type) -> str:
    """The name of a class in keys and records: `Training`, or `k_sigma.KSigma` of the method named k_sigma."""
    if TYPES.get(kind.__name__) == kind.__module__:
        return kind.__name__
    return f"{kind.name}.{kind.__name__}"  # type: ignore[attr-defined]
