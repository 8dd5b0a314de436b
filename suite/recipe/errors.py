"""SuiteError, the error that a user can mend, and the checks that raise it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class SuiteError(Exception):
    """A fault the user can mend; its message says what is wrong, what was got and what to do."""


def not_finite(what: str) -> SuiteError:
    """The error of a tensor, named by `what`, that has no range to quantize it in."""
    return SuiteError(
        f"{what} holds inf or NaN; the model has overflowed or diverged: train it with a lower learning rate, or "
        f"compute in float32"
    )


def no_checkpoint(file: Path, remedy: str = "put it there, or name another file") -> SuiteError:
    """The error of a checkpoint file that is not there, or that is a folder."""
    if not file.is_dir():
        return SuiteError(f"no checkpoint {file}; {remedy}")
    inside = sorted(entry.name for entry in file.iterdir() if entry.is_file())
    return SuiteError(
        f"{file} is a folder, of {', '.join(inside[:6]) or 'no files'}; name the checkpoint file itself"
    )


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise SuiteError unless `value` is one of `allowed`."""
    options = tuple(allowed)
    if value not in options:
        raise SuiteError(f"{name} {value!r} is unknown; use one of {', '.join(map(str, options))}")


def check_bits(name: str, value: int | None, *also: int | None) -> None:
    """Raise SuiteError unless `value` is a whole number of bits from 2 to 16, or in `also`."""
    if value not in also and (type(value) is not int or not 2 <= value <= 16):
        raise SuiteError(f"{name} {value!r} is out of range; use a whole number from 2 to 16")


def check_fraction(name: str, value: float) -> None:
    """Raise SuiteError unless `value` is above 0 and at most 1."""
    if not 0 < value <= 1:
        raise SuiteError(f"{name} {value} is out of range; use a fraction above 0 and up to 1")


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


def check_not_negative(owner: object, **values: float) -> None:
    """Raise SuiteError unless all of `owner`'s named values are 0 or more, and finite."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise SuiteError(f"{type(owner).__name__}.{name} must be 0 or more, got {value!r}")


def check_widths(method: object, *also: int) -> None:
    """Raise SuiteError unless a method's `weight_bits` and `act_bits` are whole numbers from 2 to 16, or in `also`."""
    for name in ("weight_bits", "act_bits"):
        check_bits(name, getattr(method, name), *also)


def check_kinds(owner: object, **kinds: type | tuple[type, ...]) -> None:
    """Raise SuiteError unless each of `owner`'s named values is of its kind."""
    for name, wanted in kinds.items():
        value = getattr(owner, name)
        if not isinstance(value, wanted):
            named = " or a ".join(
                kind.__name__ for kind in (wanted if isinstance(wanted, tuple) else (wanted,))
            )
            is_class = isinstance(value, type)
            got = f"the class {value.__name__}; write {value.__name__}(...)" if is_class else repr(value)
            raise SuiteError(f"{type(owner).__name__}.{name} must be a {named}, got {got}")


def first_line(error: BaseException) -> str:
    r"""The first line of what an error of another library says; the name of its class where it says nothing.

    >>> first_line(ValueError("no\nmore")), first_line(ValueError())
    ('no', 'ValueError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def in_a_line(error: BaseException) -> str:
    r"""An error of another library: its class and the first line of what it says, 300 letters at most.

    >>> in_a_line(ValueError("no\nmore")), in_a_line(ValueError())
    ('ValueError: no', 'ValueError')
    """
    kind = type(error).__name__
    return f"{kind}: {first_line(error)}"[:300] if str(error).strip() else kind
