"""Whether a method of a user's is one: what a record, a key and a name are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from suite.recipe.errors import SuiteError
from suite.recipe.method import Method
from suite.recipe.words import counted

PLAIN = (str, int, float, bool, type(None))


def check_own(method: Method) -> None:
    """Raise SuiteError unless a method that is not of the suite is a frozen dataclass with a default for each field
    and plain values in them, has widths, and lists its steps."""
    kind = type(method)
    if kind.__module__.startswith("suite."):
        return
    params = getattr(kind, "__dataclass_params__", None)
    if params is None or not params.frozen:
        raise SuiteError(
            f"{kind.__name__} is no frozen dataclass; write @dataclass(frozen=True) above the class: a stage is known "
            f"by its method's fields"
        )
    names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if missed := [
        name
        for name, what in vars(kind).get("__annotations__", {}).items()
        if name not in names and "ClassVar" not in str(what)
    ]:
        raise SuiteError(
            f"{kind.__name__}.{missed[0]} is no field of it; write @dataclass(frozen=True) above class {kind.__name__}"
        )
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise SuiteError(
                f"{kind.__name__}.{item.name} has no default; give it one: a stage's name says what differs from it"
            )
        for value in _strange(getattr(method, item.name)):
            raise SuiteError(
                f"{kind.__name__}.{item.name} holds {value!r}, a {type(value).__name__}; a stage is known by its "
                f"method's fields: make it a number, a text, a tuple or a frozen dataclass"
            )
    _check_answers(method, kind.__name__)


def _strange(value: Any) -> Iterator[Any]:
    """What of a field's value no record can hold."""
    if isinstance(value, tuple):
        for part in value:
            yield from _strange(part)
    elif not isinstance(value, PLAIN) and (not dataclasses.is_dataclass(value) or isinstance(value, type)):
        yield value


def _check_answers(method: Method, name: str) -> None:
    for width in ("weight_bits", "act_bits"):
        try:
            bits = getattr(method, width)
        except NotImplementedError:
            raise SuiteError(f"{name} lacks {width}; give it a field {width}: int, 32 for float") from None
        if type(bits) is not int:
            raise SuiteError(f"{name}.{width} is {bits!r}; it must be a whole number of bits, 32 for float")
    try:
        steps = method.steps()
    except NotImplementedError:
        raise SuiteError(
            f"{name} lacks steps(); let it return a tuple of steps, as those of suite.steps"
        ) from None
    if not isinstance(steps, tuple) or not all(callable(getattr(step, "apply", None)) for step in steps):
        raise SuiteError(
            f"{name}.steps() gave {steps!r}; let it return a tuple of steps, as (Insert(), Bake())"
        )
    for step in steps:
        try:
            hash(step)
        except TypeError:
            raise SuiteError(
                f"{name} has a step {type(step).__name__} that is no frozen dataclass; write @dataclass(frozen=True) "
                f"above the class, and tuples for lists"
            ) from None


def check_teacher(teacher: Any, start: Any) -> None:
    """Raise SuiteError unless both stages are of the same images and classes; their normalizations may differ."""
    asked = [
        (one.dataset.name, one.dataset.size, one.dataset.channels, one.network.classes)
        for one in (teacher, start)
    ]
    if asked[0] != asked[1]:
        raise SuiteError(
            f"the teacher {teacher.name} is of {asked[0][0]} at {asked[0][1]} pixels with "
            f"{counted(asked[0][3], 'class')}, and what it is to teach, {start.name}, of {asked[1][0]} at "
            f"{asked[1][1]} pixels with {asked[1][3]}; name a teacher of the same images and classes"
        )
