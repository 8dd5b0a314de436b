"""One file a sweep: a function `sweep(...)` whose parameters are the sweep's options on the command line."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from suite.recipe import Pretrained, Recipe, Stage
from suite.recipe.errors import SuiteError
from suite.record import files

FOLDER = Path(__file__).parent
NO_SWEEPS = ("__init__", "stored")
TAKEN = (
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
    "help_sweep",
)
"""Options of the command line itself."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that was found: its name, its description, and the function that lists its stages."""

    name: str
    about: str
    function: Callable[..., Sequence[Stage]]

    def parser(self) -> argparse.ArgumentParser:
        """A parser of the function's parameters: `Annotated[int, "help"]` gives type and help."""
        parser = argparse.ArgumentParser(
            prog=f"suite ... {self.name}", description=self.about, allow_abbrev=False
        )
        hints = get_type_hints(self.function, include_extras=True)
        for name, parameter in inspect.signature(self.function).parameters.items():
            if name not in hints:
                raise SuiteError(
                    f"{self.function.__code__.co_filename}: parameter {name!r} of sweep() has no type; write "
                    f"{name}: int, or Annotated[int, 'what it is']"
                )
            if name in TAKEN:
                raise SuiteError(
                    f"{self.function.__code__.co_filename}: sweep() cannot have a parameter {name!r}, "
                    f"the command line has --{name} already; rename it"
                )
            _add_option(parser, name, hints[name], parameter.default)
        return parser

    def stages(self, words: Sequence[str]) -> tuple[list[Stage], dict[str, Any]]:
        """(what the sweep lists for these command line words, the options as they were understood).

        A checkpoint that it names without a checksum has that of its file. Raises SuiteError where there is no file.
        """
        options = vars(self.parser().parse_args(list(words)))
        try:
            stages = list(self.function(**options))
        except SuiteError:
            raise
        except Exception as error:
            raise _broken(self.function.__code__.co_filename, error) from error
        if not stages or not all(isinstance(stage, Stage) for stage in stages):
            raise SuiteError(
                f"{self.function.__code__.co_filename}: sweep() must return Stages and at least one"
            )
        complete = cache(_with_checksum)  # of one file only once
        stages = [_from(complete, stage) for stage in stages]
        return stages, {name: str(value) for name, value in options.items()}


def _with_checksum(start: Pretrained) -> Pretrained:
    """With the file's absolute path, for workers in another folder, and its SHA-256 where none is named."""
    file = Path(start.file).expanduser().resolve()
    if not start.sha256 and not file.is_file():
        raise SuiteError(f"no checkpoint {file}; name an existing file in the sweep's Pretrained")
    return replace(start, file=str(file), sha256=start.sha256 or files.sha256(file))


def _from(complete: Callable[[Pretrained], Pretrained], stage: Stage) -> Stage:
    if isinstance(stage, Pretrained):
        return complete(stage)
    if isinstance(stage, Recipe) and isinstance(stage.start, Pretrained):
        return replace(stage, start=complete(stage.start))
    return stage


def _add_option(parser: argparse.ArgumentParser, name: str, annotation: Any, default: Any) -> None:
    """`name: Annotated[int | None, "help"] = None` as `--name INT`; a bool as `--name` and `--no-name`."""
    words = ""
    if get_origin(annotation) is Annotated:
        annotation, words = get_args(annotation)[:2]
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    kind = kinds[0] if kinds else annotation
    options = None
    if get_origin(annotation) is Literal:
        options, kind = list(get_args(annotation)), type(get_args(annotation)[0])
    required = default is inspect.Parameter.empty
    about = words if required or default is None else f"{words} (default: {default})".strip()
    how: dict[str, Any] = (
        {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind, "choices": options}
    )
    flag = f"--{name.replace('_', '-')}"
    about = about.replace("%", "%%")
    parser.add_argument(flag, required=required, default=None if required else default, help=about, **how)


def names() -> list[str]:
    """The sweeps that ship with the suite."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in NO_SWEEPS)


def find(name: str) -> Sweep:
    """The sweep of that name in this folder, or in the user's own file where `name` ends in .py."""
    file = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if not file.is_file() or name in NO_SWEEPS:
        raise SuiteError(
            f"no sweep {name!r}; there is {', '.join(names())}, or give the path of your own .py file"
        )
    if name.endswith(".py") and file.stem in names() and file.resolve().parent != FOLDER:
        raise SuiteError(f"{file} has the name of the suite's own sweep {file.stem!r}; rename the file")
    module = _load(file)
    function = getattr(module, "sweep", None)
    if not callable(function):
        raise SuiteError(f"{file} has no function sweep() that returns its stages")
    return Sweep(file.stem, inspect.cleandoc(module.__doc__ or function.__doc__ or ""), function)


def _load(file: Path) -> ModuleType:
    own = file.resolve().parent == FOLDER
    spec = importlib.util.spec_from_file_location(
        f"{__name__}.{file.stem}" if own else f"user_sweep.{file.stem}", file
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(file.resolve().parent)
    if not own and folder not in sys.path:
        sys.path.append(folder)  # for what the file imports beside it; last, so that it hides nothing
    try:
        spec.loader.exec_module(module)
    except SuiteError:
        raise
    except Exception as error:
        raise _broken(str(file), error) from error
    return module


def _broken(file: str, error: Exception) -> SuiteError:
    """The error with the line of the sweep's file that it comes from."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
    return SuiteError(f"{file}, line {line}: {type(error).__name__}: {error}")
