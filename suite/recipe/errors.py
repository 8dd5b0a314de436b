"""SuiteError, the error that a user can mend, and the checks that raise it."""

from __future__ import annotations

from collections.abc import Iterable


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


def check_widths(method: object, *also: int) -> None:
    """Raise SuiteError unless a method's `weight_bits` and `act_bits` are whole numbers from 2 to 16, or in `also`."""
    for name in ("weight_bits", "act_bits"):
        if getattr(method, name) not in also:
            check_bits(name, getattr(method, name))


def in_a_line(error: BaseException) -> str:
    """An error of another library: its class and the first line of what it says, 300 letters at most.

    >>> in_a_line(ValueError("no\nmore"))
    'ValueError: no'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__
