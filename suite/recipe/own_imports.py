"""What a user's Python file imports of the files around it: that is part of it, and goes where it goes.

By Python's own rules, read from the text: nothing is imported here.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """A user's file, and the folder from which its path was given, or that holds its package: imports are looked for
    beside the file and there."""

    file: Path
    base: Path


class Whole(NamedTuple):
    """A file with what it imports: the content of each file by its path in the folder `root`, the deepest that their
    names are the same in."""

    root: Path
    content: dict[str, bytes]


def place(file: Path, base: Path | None = None) -> Place:
    """Of a file whose path was given from `base`; without, from its own folder."""
    file = file.parent.resolve() / file.name  # a link to a file keeps its name
    base = (base or file.parent).resolve()
    return Place(file, base if file.is_relative_to(base) else file.parent)


def place_of_module(file: Path, module: str) -> Place:
    """Of the file of a module that was imported as `module`: a package's is given from where that package lies."""
    parts = module.split(".")
    named = (file.parent if file.name == "__init__.py" else file.with_suffix("")).parts
    above = len(parts) - (file.name != "__init__.py")
    return place(file, file.parents[above] if list(named[-len(parts) :]) == parts else None)


def with_imports(where: Place) -> Whole:
    """A file and what it imports, directly or not: modules and packages beside it or in `base`, of a package that has
    an `__init__.py` all files."""
    folders = list(dict.fromkeys((where.file.parent, where.base)))
    found: dict[Path, bytes] = {}
    root, waiting = where.file.parent, [where.file]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = path.read_bytes()
        for imported in imports_of(found[path]):
            folder, files = _files_of(imported, path, folders)
            root = folder if files and root.is_relative_to(folder) else root
            waiting += [file for file in files if file not in found]
    if root not in folders:  # it is that of a package, beside which imports are found, too
        return with_imports(Place(where.file, root))
    return Whole(root, {path.relative_to(root).as_posix(): content for path, content in found.items()})


def parsed(content: bytes) -> ast.Module | None:
    """None for what is no Python, which its import reports."""
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError):
        return None


class Import(NamedTuple):
    """`from ..parts import names` has level 2; `import parts` has level 0 and no names."""

    level: int
    parts: tuple[str, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=4096)
def imports_of(content: bytes) -> tuple[Import, ...]:
    """All that a file's text imports, at its top or elsewhere."""
    tree, found = parsed(content), list[Import]()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            found += [Import(0, tuple(alias.name.split(".")), ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = tuple(node.module.split(".")) if node.module else ()
            found.append(Import(node.level, parts, tuple(alias.name for alias in node.names)))
    return tuple(dict.fromkeys(found))


def _files_of(imported: Import, file: Path, folders: list[Path]) -> tuple[Path, list[Path]]:
    """(the folder in which Python searches, the files) of what a file imports; no files of an installed package."""
    if imported.level:
        return _relative(imported, file)
    if imported.parts[0] not in ("suite", "slurm"):
        for folder in folders:
            if files := _files(folder, imported.parts, imported.names):
                return folder, files
    return file.parent, []


def _relative(imported: Import, file: Path) -> tuple[Path, list[Path]]:
    package = file.parents[min(imported.level, len(file.parents)) - 1]
    top = package
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    if (top / "__init__.py").is_file():
        return top.parent, _python_in(top)
    if imported.parts:
        return top.parent, _files(package, imported.parts, imported.names)
    return top.parent, _submodules(package, imported.names)


def _files(folder: Path, parts: Sequence[str], names: Sequence[str]) -> list[Path]:
    """Of the module `parts` in a folder, of which `names` are imported; none where there is no such module."""
    inside, module = folder / parts[0], folder / f"{parts[0]}.py"
    if (inside / "__init__.py").is_file():
        return _python_in(inside)
    if module.is_file():
        return [module]
    if not inside.is_dir():
        return []
    return _files(inside, parts[1:], names) if parts[1:] else _submodules(inside, names)


def _submodules(folder: Path, names: Sequence[str]) -> list[Path]:
    """Those of a folder without `__init__.py` that are imported from it by their names."""
    return [file for name in names for file in _files(folder, [name], ())]


def _python_in(package: Path) -> list[Path]:
    """All of its files; not what editors put beside them, such as Emacs' links that lead nowhere."""
    return sorted(file for file in package.rglob("*.py") if file.is_file() and not file.name.startswith("."))
