"""The source files of what a stage computes: which they are, and their SHA-256."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from suite.recipe.stages import Stage
from suite.recipe.user_files import of_class

SHARED = ("suite.recipe.", "suite.steps.")
"""Modules of values, which are in a stage's key, and of the steps that all methods are made of."""


def sources(stage: Stage) -> dict[str, str]:
    """The SHA-256, by module, of each file that the stage's method is written in: those of its classes, of the classes
    they inherit from, of the values in its fields and of its own steps. Empty for a stage without a method. A user's
    own file is left out: its SHA-256 is in the key."""
    method = getattr(stage, "method", None)
    modules = _modules(method) | _modules(method.steps()) if method else set()
    return {module: source_sha256(module) for module in sorted(modules)}


@cache
def source_sha256(module: str) -> str:
    """The SHA-256 of a module's file. It is that of the code in use if it is asked for when the module is imported,
    as `suite.methods.find` does: a file that is edited later changes neither."""
    return hashlib.sha256(source_file(module).read_bytes()).hexdigest()


def source_file(module: str) -> Path:
    """The file that a module was imported from."""
    return Path(str(sys.modules[module].__file__))


def _modules(value: Any) -> set[str]:
    if isinstance(value, tuple):
        return set[str]().union(*map(_modules, value))
    made_by: type = type(value)
    if not dataclasses.is_dataclass(value):
        return set()
    kinds = [kind for kind in made_by.__mro__ if not of_class(kind)]
    own = {kind.__module__ for kind in kinds if _has_own_file(kind.__module__)}
    return own.union(*(_modules(getattr(value, item.name)) for item in dataclasses.fields(value)))


def _has_own_file(module: str) -> bool:
    if module.startswith(SHARED) or module.partition(".")[0] in sys.stdlib_module_names:
        return False
    return bool(getattr(sys.modules.get(module), "__file__", None))
