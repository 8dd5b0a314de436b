"""Values as JSON and back: the canonical form that keys are made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from suite.recipe.user_files import of_class, of_value

DATA_FIELDS = ("feed", "calibration")
"""The fields of methods that hold the data that they need. Their parameters are those of the data itself."""

AS_GIVEN = ("warmup_epochs",)
"""The float fields of which 5 and 5.0 are two keys: shipped sweeps have both."""


def flat(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as scalars; a nested one or a tuple becomes its text. Fields of
    DATA_FIELDS stay out, and so does a field that came later where it has its default."""
    result = {}
    for item in dataclasses.fields(value):
        content = content_of(value, item)
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
        if (content := content_of(value, item)) != default(item)
    ]
    return f"{type(value).__name__}({', '.join(changed)})" if changed else type(value).__name__


def default(item: dataclasses.Field[Any]) -> Any:
    """What a field has where it is not given."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def content_of(value: Any, item: dataclasses.Field[Any]) -> Any:
    """What a field of a dataclass holds; a whole number in the place of a float is one: `lr=1` is `lr=1.0`."""
    content = getattr(value, item.name)
    of: Any = type(value)
    kind = _floats(of).get(item.name)
    return content if kind is None or type(content) is float else _with_floats(content, kind)


@cache
def _floats(kind: type) -> dict[str, Any]:
    """The types of the fields that hold a float, or floats in a tuple, by their names."""
    try:
        kinds = get_type_hints(kind)
    except NameError:  # of what a user's file imports for type checkers alone
        return {}
    names = (item.name for item in dataclasses.fields(kind) if item.name not in AS_GIVEN)
    return {name: kinds[name] for name in names if _holds_float(kinds[name])}


def _holds_float(kind: Any) -> bool:
    return kind is float or any(map(_holds_float, get_args(kind)))


def _with_floats(content: Any, kind: Any) -> Any:
    """`content`, which the type `kind` describes, with floats wherever that has floats."""
    parts = get_args(kind)
    if type(content) is int:
        return float(content) if kind is float or float in parts else content
    if type(content) is not tuple or get_origin(kind) is not tuple:
        return content
    parts = parts[:1] * len(content) if parts[-1:] == (...,) else parts
    return tuple(map(_with_floats, content, parts)) if len(parts) == len(content) else content


def key_of(value: Any, as_given: bool = False) -> str:
    """The first 16 hex digits of SHA-256 over every field that changes the result, nested ones included.

    `as_given` is the key of a version to which `lr=1` and `lr=1.0` were two values.
    """
    content = to_json(value, for_key=True, as_given=as_given)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _as_before(item: dataclasses.Field[Any], content: object) -> bool:
    return content == item.default and not item.metadata.get("in_key_by_default", True)


def to_json(value: Any, for_key: bool = False, as_given: bool = False) -> Any:
    """Nested dataclasses as plain data, each with its `type`, and with its `revision` where it has one."""
    # First, because most values of a stage are such, and the keys of thousands are asked for at once.
    if isinstance(value, (str, int, float)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result: dict[str, Any] = {"type": type_name(type(value))}
        if own := of_value(value):
            result["type_sha256"] = own.sha256
        if (revision := getattr(value, "revision", None)) is not None:
            result["revision"] = revision
        for item in dataclasses.fields(value):
            content = getattr(value, item.name) if as_given else content_of(value, item)
            if not for_key or (item.metadata.get("in_key", True) and not _as_before(item, content)):
                result[item.name] = to_json(content, for_key, as_given)
        return result
    if isinstance(value, tuple):
        return [to_json(item, for_key, as_given) for item in value]
    return value


def replaced(value: Any, kind: type | tuple[type, ...], by: Callable[[Any], Any]) -> Any:
    """`value` with each value of `kind` in its fields, nested ones included, replaced by `by` of it; the value itself
    where that changes nothing."""
    if isinstance(value, kind):
        return by(value)
    if type(value) is tuple:
        parts = tuple(replaced(part, kind, by) for part in value)
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changed = {}
    for item in dataclasses.fields(value):
        content = getattr(value, item.name)
        if (new := replaced(content, kind, by)) is not content:
            changed[item.name] = new
    return dataclasses.replace(value, **changed) if changed else value


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
    "Apot": "suite.steps.learned",
    "BinaryRelax": "suite.steps.learned",
    "Deviations": "suite.steps.learned",
    "Dorefa": "suite.steps.learned",
    "Ewgs": "suite.steps.learned",
    "Lsq": "suite.steps.learned",
    "LsqPlus": "suite.steps.learned",
    "MeanMagnitude": "suite.steps.learned",
    "Pact": "suite.steps.learned",
    "Parq": "suite.steps.learned",
    "StartLearning": "suite.steps.learned",
    "AssignWidths": "suite.steps.assign_widths",
    "LayerTimes": "suite.steps.layer_times",
    "MeasureSensitivity": "suite.steps.measure_sensitivity",
    "FoldBatchNorm": "suite.steps.batch_norm",
    "FreezeBatchNorm": "suite.steps.batch_norm",
    "ReestimateBatchNorm": "suite.steps.batch_norm",
    "TakeRanges": "suite.steps.calibrate",
    "RunCalibration": "suite.steps.calibrate",
    "Insert": "suite.steps.insert",
    "Bake": "suite.steps.insert",
    "Reconstruct": "suite.steps.reconstruct",
    "CorrectBias": "suite.steps.correct_bias",
    "Equalize": "suite.steps.equalize",
    "AffineLeastError": "suite.steps.weight_range",
    "StartUntrained": "suite.steps.train_on",
    "Damping": "suite.recipe.settings",
    "Distillation": "suite.steps.train_on",
    "Freezing": "suite.recipe.settings",
    "TrainOn": "suite.steps.train_on",
}
"""The module of each class that a stage is made of, beside its method: what a Scheme is
made of, too. The names are in every key and in every record:
a module may move, a name may not change."""


def type_name(kind: type) -> str:
    """The name of a class in keys and records: `Training`, `k_sigma.KSigma` of the method named k_sigma, or
    `my_file.py:Mine` of a user's file."""
    if TYPES.get(kind.__name__) == kind.__module__:
        return kind.__name__
    if own := of_class(kind):
        return own.name
    return f"{kind.name}.{kind.__name__}"  # type: ignore[attr-defined]
