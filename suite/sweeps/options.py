"""The parameters of a function as options of the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnknownOptionError, convert
from rich.console import Console

from suite.recipe.errors import SuiteError
from suite.record.terminal_text import default_shown

TAKEN = [
    "runs",
    "data",
    "only",
    "name",
    "on",
    "workers",
    "gpus_per_run",
    "cluster",
    "download",
    "replace",
    "help",
]
"""Options of the command line itself."""


class Options:
    """Those of the sweep `name`, which asks what `about` says: `Annotated[int, "help"]` gives type and help. A
    parameter may be a dataclass of options that several sweeps have, as that of suite.sweeps.float_network.

    Raises SuiteError for a parameter that cannot be an option.
    """

    def __init__(self, name: str, about: str, function: Callable[..., Any]) -> None:
        # A paragraph is one line, which --help breaks where the terminal ends.
        self._about = re.sub(r"(?<=\S)\n(?=[^\s*-])", " ", about)
        self._name, self._signature = name, _signature(function)
        file = Path(function.__code__.co_filename)
        of_suite = file.parent == Path(__file__).parent
        self._command = "explain" if name == "explain" else f"plan {name if of_suite else file.name}"
        self._app = self._taking(self._signature)

    def _taking(self, signature: inspect.Signature) -> App:
        def given(**options: Any) -> None: ...

        given.__signature__ = signature  # type: ignore[attr-defined]
        app = App(
            help=self._about,
            help_flags=(),
            version_flags=(),
            help_format="plaintext",
            usage="",
            group_parameters=f"Options of {self._name}",
            default_parameter=Parameter(
                consume_multiple=True, negative_iterable=(), converter=exact, show_default=default_shown
            ),
        )
        app.default(given)
        return app

    def parse(self, words: Sequence[str]) -> dict[str, Any]:
        """The value of each, by its name. Raises SuiteError for words that are none."""
        try:
            _, bound, _ = self._app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            raise SuiteError(f"{self._explained(error)} See suite {self._command} --help") from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def _explained(self, error: CycloptsError) -> str:
        """What is wrong with the words; of an option that the sweep needs and was not given, what it is."""
        if isinstance(error, MissingArgumentError) and error.keyword is None and error.argument:
            return f"{self._name} needs {error.argument.name}: {error.argument.parameter.help}."
        return explained(error, TAKEN)

    def print_help(self, console: Console, without: Collection[str] = ()) -> None:
        """Show what the sweep asks, and each option with its default; not those that the command gives itself."""
        shown = [p for p in self._signature.parameters.values() if p.name not in without]
        self._taking(inspect.Signature(shown)).help_print([], console=console)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """That of the function, its parameters given by name alone and described as cyclopts takes it."""
    hints, parameters = get_type_hints(function, include_extras=True), []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in hints:
            raise SuiteError(
                f"{function.__code__.co_filename}: parameter {name!r} of sweep() has no type; write {name}: int, or "
                f"Annotated[int, 'what it is']"
            )
        kind: Any = hints[name]
        for option in [item.name for item in fields(kind)] if is_dataclass(kind) else [name]:
            if option in TAKEN:
                raise SuiteError(
                    f"{function.__code__.co_filename}: sweep() cannot have a parameter {option!r}, the command line "
                    f"has --{option.replace('_', '-')} already; rename it"
                )
        described = _described(kind)
        parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=described))
    return inspect.Signature(parameters)


def _described(hint: Any) -> Any:
    """The type with its text as cyclopts takes it."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *notes = get_args(hint)
    return Annotated[kind, *(Parameter(help=note) if isinstance(note, str) else note for note in notes)]


def explained(error: CycloptsError, of_command: Collection[str] = ()) -> str:
    """What is wrong with the words of a command; of an unknown option also which are known: those that were parsed,
    and of a sweep also those `of_command`, by their fields."""
    text = str(error).strip()
    text += "" if text.endswith((".", "?")) else "."
    if not isinstance(error, UnknownOptionError):
        return text
    known = [argument.name for argument in error.argument_collection if argument.name.startswith("--")]
    if not of_command:
        return f"{text} There is {', '.join(known)}."
    others = ", ".join(f"--{name.replace('_', '-')}" for name in of_command)
    return f"{text} Options of the sweep: {', '.join(known) or 'none'}; of the command: {others}."


def exact(kind: Any, tokens: Sequence[Any]) -> Any:
    """The value of an option as cyclopts converts it, but no fraction becomes a whole number."""
    return convert(kind, tokens, lambda leaf, text: int(text) if leaf is int else convert(leaf, [text]))
