"""Values as JSON and back: the canonical form that keys are made of."""

from __future__ import annotations

import dataclasses
from typing import Any

DATA_FIELDS = ("feed", "calibration")
"""The fields of methods that hold the data that they need. Their parameters are those of the data itself."""


def flat(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as scalars; a nested one or a tuple becomes its text. Fields of
    DATA_FIELDS stay out, and so does a field that came later where it has its default."""
    result = {}
    for item in dataclasses.fields(value):
        content = getattr(value, item.name)
        if item.name not in DATA_FIELDS and not _as_before(item, content):
            plain = isinstance(content, (str, int, float, bool))
            result[item.name] = content if plain else text(content)
    return result


def text(value: Any) -> str:
    """A value in one line: of a dataclass that has no text of its own, its name and what is not its default."""
    if isinstance(value, tuple):
        return ",".join(map(text, value))
    if not dataclasses.is_dataclass(value) or type(value).__str__ is not object.__str__:
        return str(value)
    changed = [
        f"{item.name}={text(content)}"
        for item in dataclasses.fields(value)
        if (content := getattr(value, item.name)) != default(item)
    ]
    return f"{type(value).__name__}({', '.join(changed)})" if changed else type(value).__name__


def default(item: dataclasses.Field[Any]) -> Any:
    """What a field has where it is not given."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _as_before(item: dataclasses.Field[Any], content: object) -> bool:
    return content == item.default and not item.metadata.get("in_key_by_default", True)


def to_json(value: Any, for_key: bool = False) -> Any:
    """Nested dataclasses as plain data, each with its `type`, a method also with its `revision`."""
    if isinstance(
        value, (str, int, float)
    ):  # most values of a stage, and the keys of thousands are asked for at once
        return value
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
    "Uniform": "suite.steps.rounding",
    "CurrentMinMax": "suite.steps.rounding",
    "MinMax": "suite.steps.rounding",
    "LeastError": "suite.steps.rounding",
    "Entropy": "suite.steps.rounding",
    "Percentile": "suite.steps.rounding",
    "MovingMinMax": "suite.steps.rounding",
    "MovingPercentile": "suite.steps.rounding",
    "SearchedHistogram": "suite.steps.rounding",
    "FoldBatchNorm": "suite.steps.batch_norm",
    "FreezeBatchNorm": "suite.steps.batch_norm",
    "ReestimateBatchNorm": "suite.steps.batch_norm",
    "TakeRanges": "suite.steps.calibrate",
    "RunCalibration": "suite.steps.calibrate",
    "Insert": "suite.steps.insert",
    "Bake": "suite.steps.insert",
    "StartUntrained": "suite.steps.train_on",
    "TrainOn": "suite.steps.train_on",
}
"""The module of each class that a stage is made of, beside its method: what a Scheme is
made of, too. The names are in every key and in every record:
a module may move, a name may not change."""


def type_name(kind: type) -> str:
    """The name of a class in keys and records: `Training`, or `k_sigma.KSigma` of the method named k_sigma."""
    if TYPES.get(kind.__name__) == kind.__module__:
        return kind.__name__
    return f"{kind.name}.{kind.__name__}"  # type: ignore[attr-defined]
