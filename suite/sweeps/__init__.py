"""One file a sweep: a function `sweep(...)` whose parameters are the sweep's options on the command line."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from suite.recipe import Pretrained, Stage, user_files
from suite.recipe.errors import SuiteError, no_checkpoint
from suite.recipe.own_imports import place
from suite.recipe.serialize import replaced
from suite.record import files
from suite.sweeps.options import Options

FOLDER = Path(__file__).parent
NO_SWEEPS = ("__init__", "float_network", "options", "recorded", "stored", "values")


@dataclass(frozen=True)
class Sweep:
    """A sweep that was found: its name, its description, and the function that lists its stages."""

    name: str
    about: str
    function: Callable[..., Sequence[Stage]]

    @property
    def options(self) -> Options:
        """The function's parameters, as options. Raises SuiteError for one that cannot be an option."""
        return Options(self.name, self.about, self.function)

    def stages(self, words: Sequence[str]) -> tuple[list[Stage], dict[str, Any]]:
        """(what the sweep lists for these command line words, the options as they were understood).

        A checkpoint that it names without a checksum has that of its file. Raises SuiteError where there is no file.
        """
        options = self.options.parse(words)
        try:
            stages = list(self.function(**options))
        except SuiteError:
            raise
        except (Exception, SystemExit) as error:
            raise user_files.broken(Path(self.function.__code__.co_filename), error) from error
        if not stages or not all(isinstance(stage, Stage) for stage in stages):
            raise SuiteError(
                f"{self.function.__code__.co_filename}: sweep() must return Stages and at least one"
            )
        complete = cache(_with_checksum)  # of one file only once
        stages = [replaced(stage, Pretrained, complete) for stage in stages]
        return stages, dict(_as_text(options))


def _as_text(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each option with its value; of a dataclass of options, those that it holds."""
    for name, value in options.items():
        if is_dataclass(value):
            yield from ((item.name, str(getattr(value, item.name))) for item in fields(value))
        else:
            yield name, str(value)


def _with_checksum(start: Pretrained) -> Pretrained:
    """With the file's absolute path, for workers in another folder, and its SHA-256 where none is named."""
    file = Path(start.file).expanduser().resolve()
    if not start.sha256 and not file.is_file():
        raise no_checkpoint(file)
    return replace(start, file=str(file), sha256=start.sha256 or files.sha256(file))


def names() -> list[str]:
    """The sweeps that ship with the suite."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in NO_SWEEPS)


def find(name: str) -> Sweep:
    """The sweep of that name in this folder, or in the user's own file where `name` ends in .py. Raises SuiteError
    where there is none, and where the file cannot be imported or has no function sweep()."""
    file = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if name.endswith(".py") and not file.is_file():
        raise SuiteError(f"no file {file}; give the path of your own sweep, or one of {', '.join(names())}")
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
    folder = file.resolve().parent
    if not own and str(folder) not in sys.path:
        sys.path.append(str(folder))  # for what the file imports beside it; last, so that it hides nothing
    if not own and folder not in user_files.BESIDE:
        user_files.BESIDE.append(folder)
    try:
        spec.loader.exec_module(module)
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:
        raise user_files.broken(file, error) from error
    if not own:
        user_files.note(place(file), module)
    return module
