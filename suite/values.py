"""What all frozen values share: checks with a clear error, and a canonical form as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


class SuiteError(Exception):
    """A fault the user can mend; its message says what is wrong, what was got and what to do."""


def not_finite(what: str) -> SuiteError:
    """The error of a tensor, named by `what`, that has no range to quantize it in."""
    return SuiteError(
        f"{what} holds inf or NaN; the model has overflowed or diverged: train it with a lower learning rate, or "
        f"compute in float32"
    )


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise SuiteError unless `value` is one of `allowed`."""
    options = tuple(allowed)
    if value not in options:
        raise SuiteError(f"{name} {value!r} is unknown; use one of {', '.join(map(str, options))}")


def check_bits(name: str, value: int, low: int = 2, high: int = 16) -> None:
    """Raise SuiteError unless `value` is a whole number of bits in low..high."""
    if type(value) is not int or not low <= value <= high:
        raise SuiteError(f"{name} {value!r} is out of range; use a whole number from {low} to {high}")


def check_whole(owner: object, lowest: int, **values: int) -> None:
    """Raise SuiteError unless all of `owner`'s named values are whole numbers from `lowest` on."""
    for name, value in values.items():
        if type(value) is not int or value < lowest:
            raise SuiteError(
                f"{type(owner).__name__}.{name} must be a whole number from {lowest} on, got {value!r}"
            )


def check_positive(owner: object, **values: float) -> None:
    """Raise SuiteError unless all of `owner`'s named values are above 0."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise SuiteError(f"{type(owner).__name__}.{name} must be above 0, got {value!r}")


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


def type_name(kind: type) -> str:
    """`Training` for what stands here, `k_sigma.KSigma` for a method."""
    module = kind.__module__.rpartition(".")[2]
    return kind.__name__ if module in ("recipe", "settings") else f"{module}.{kind.__name__}"
