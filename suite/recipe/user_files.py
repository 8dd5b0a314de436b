"""A user's own Python file as part of a stage: known by its SHA-256, imported by its path, kept with the runs.

Methods, networks and data sets of the user's are objects in such a file, written `my_file.py:object`. What the file
imports of the files and folders beside it belongs to it. A worker, which may see the runs folder alone, imports the
copy that is kept there.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from suite.recipe.errors import SuiteError

KEPT = "user_files"
"""The folder, in a runs folder and in a run directory, of the copies: KEPT/SHA256/my_file.py."""

BESIDE: list[Path] = []
"""Where a relative path is looked for after the working folder: the folders of the sweeps' files."""

_found: dict[str, Path] = {}
"""The file in use for each SHA-256."""
_modules: dict[str, ModuleType] = {}
"""What was imported for each SHA-256."""


class Reference(NamedTuple):
    """An object in a user's file: `name` is `my_file.py:object`, without folders, and `sha256` that of the file."""

    name: str
    sha256: str


def is_reference(name: str) -> bool:
    """Whether a name is that of an object in a file: `my_file.py:object`."""
    return ".py:" in name


def resolved(name: str) -> Reference:
    """The reference of `folder/my_file.py:object`. Raises SuiteError where there is no such file; the object is looked
    for when it is loaded."""
    path, _, wanted = name.rpartition(":")
    if not wanted.isidentifier():
        raise SuiteError(f"{name!r} names no object; write my_file.py:name")
    places = [Path(path).expanduser(), *(folder / path for folder in BESIDE)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        looked = ", ".join(str(place.resolve().parent) for place in places)
        raise SuiteError(f"no file {path} for {name!r}; looked in {looked}")
    return Reference(f"{file.name}:{wanted}", note(file))


def note(file: Path, module: ModuleType | None = None) -> str:
    """The SHA-256 of a user's file, which is used from now on for what has it; `module` is what it was imported as."""
    sha256 = sha256_of(file)
    _found.setdefault(sha256, file.resolve())
    if module is not None:
        _modules.setdefault(sha256, module)
    return sha256


def sha256_of(file: Path) -> str:
    """In hex: of the file, where it imports nothing beside it, and else of the SHA-256 of it and of what it imports.

    A file's top-level function `sweep` is left out, so that a sweep of another seed in the same file repeats nothing.
    """
    parts = {name: hashlib.sha256(_without_sweep(content)) for name, content in _with_imports(file).items()}
    if len(parts) == 1:
        return parts[file.name].hexdigest()
    lines = [f"{name} {part.hexdigest()}\n" for name, part in sorted(parts.items())]
    return hashlib.sha256("".join([f"{file.name}\n", *lines]).encode()).hexdigest()


def _without_sweep(content: bytes) -> bytes:
    tree = _parsed(content)
    lines = content.splitlines(keepends=True)
    for node in reversed(tree.body if tree else []):
        if isinstance(node, ast.FunctionDef) and node.name == "sweep":
            first = min([node.lineno, *(made.lineno for made in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
    return b"".join(lines)


def _parsed(content: bytes) -> ast.Module | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError):
        return None  # which its import reports


def _with_imports(file: Path) -> dict[str, bytes]:
    """The file and what it imports, directly or not, of the files and packages beside it: content by relative path."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(file.parent).as_posix()
        if name not in found:
            found[name] = path.read_bytes()
            waiting += _imported(found[name], file.parent)
    return found


def _imported(content: bytes, folder: Path) -> Iterator[Path]:
    tree = _parsed(content)
    names = set[str]()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    for top in sorted({name.partition(".")[0] for name in names} - {"suite", "slurm"}):
        if (folder / f"{top}.py").is_file():
            yield folder / f"{top}.py"
        elif (folder / top / "__init__.py").is_file():
            yield from sorted((folder / top).rglob("*.py"))


def of_value(value: Any) -> Reference | None:
    """The reference of the class of a value; None of the suite's classes and of installed packages'."""
    kind: Any = type(value)
    return of_class(kind)


@cache
def of_class(kind: Any) -> Reference | None:
    """The reference of a class of a user's file; None of the suite's classes and of installed packages'."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    top = kind.__module__.partition(".")[0]
    if module is None or not file or top == "suite" or top in sys.stdlib_module_names:
        return None
    path = Path(file)
    if path.suffix != ".py" or not path.is_file() or {"site-packages", "dist-packages"} & set(path.parts):
        return None
    return Reference(f"{path.name}:{kind.__qualname__}", note(path, module))


def load(reference: Reference) -> Any:
    """The object itself. Raises SuiteError, with the line of the user's file, where its import fails, and where the
    file has no such object."""
    name, _, wanted = reference.name.rpartition(":")
    module = _module(name, reference.sha256)
    if not hasattr(module, wanted):
        there = ", ".join(key for key in vars(module) if not key.startswith("_")) or "nothing"
        raise SuiteError(f"{module.__file__} has no {wanted!r}; it has {there}")
    return getattr(module, wanted)


def _module(name: str, sha256: str) -> ModuleType:
    if sha256 in _modules:
        return _modules[sha256]
    file = _found.get(sha256)
    if file is None or not file.is_file():
        raise SuiteError(f"no copy of {name} with SHA-256 {sha256[:16]} is kept; plan the sweep again")
    if sha256_of(file) != sha256:
        raise SuiteError(f"{file} has changed since it was planned; plan the sweep again")
    module = _imported_from(file, sha256)
    return _modules.setdefault(sha256, module)


def _imported_from(file: Path, sha256: str) -> ModuleType:
    _check_one_version(file)
    taken = file.stem in sys.modules or not file.stem.isidentifier()
    known = None if taken else importlib.util.find_spec(file.stem)
    free = not taken and (known is None or known.origin == str(file))
    name = file.stem if free else f"user_{file.stem}_{sha256[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(file.parent) not in sys.path:
        sys.path.append(
            str(file.parent)
        )  # for what the file imports beside it; last, so that it hides nothing
    try:
        spec.loader.exec_module(module)
    except SuiteError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise broken(file, error) from error
    return module


def _check_one_version(file: Path) -> None:
    """Raise SuiteError where a file that this one imports was imported already with another content."""
    for name, content in _with_imports(file).items():
        if name == file.name:
            continue
        module = sys.modules.get(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        other = Path(str(getattr(module, "__file__", None) or ""))
        if other.is_file() and other.read_bytes() != content:
            raise SuiteError(
                f"{file} imports {name}, and this process has imported {other}, which differs; run their stages in "
                f"processes of their own"
            )


def broken(file: Path, error: Exception) -> SuiteError:
    """What went wrong in a user's file, with its line."""
    if isinstance(error, SyntaxError):
        return SuiteError(f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == file.absolute()]
    where = f"{file}, line {lines[-1]}" if lines else str(file)
    return SuiteError(f"{where}: {type(error).__name__}: {error}")


def references(data: Any) -> set[Reference]:
    """All references in the JSON of a stage: of networks and data sets by `name`, of the user's classes by `type`."""
    if isinstance(data, list):
        return set[Reference]().union(*map(references, data))
    if not isinstance(data, dict):
        return set()
    found = set[Reference]().union(*map(references, data.values()))
    for field, sha256 in (("type", "type_sha256"), ("name", "sha256")):
        name = data.get(field)
        if isinstance(name, str) and is_reference(name):
            found.add(Reference(name, str(data.get(sha256))))
    return found


def keep(data: Any, folder: Path) -> None:
    """Copy every file that the JSON of a stage refers to, with what it imports, into `folder`/KEPT/SHA256, once."""
    for reference in references(data):
        kept = folder / KEPT / reference.sha256
        if kept.is_dir():
            continue
        file = _found[reference.sha256]
        if sha256_of(file) != reference.sha256:
            raise SuiteError(f"{file} has changed since the sweep was made of it; plan the sweep again")
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
        for name, content in _with_imports(file).items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(content)
        fresh.chmod(0o755)
        try:
            fresh.rename(kept)
        except OSError:  # another process was first
            shutil.rmtree(fresh, ignore_errors=True)
            if not kept.is_dir():
                raise


def find_kept(data: Any, folder: Path) -> None:
    """Use the copies in `folder`/KEPT for what the JSON of a stage refers to, where no other file is in use for it."""
    for name, sha256 in references(data):
        file = folder / KEPT / Path(sha256).name / Path(name.rpartition(":")[0]).name
        if file.is_file():
            _found.setdefault(sha256, file.resolve())


def content_of(sha256: str) -> bytes:
    """The file in use for a SHA-256 with what it imports beside it; empty where there is none."""
    file = _found.get(sha256)
    return b"\n".join(_with_imports(file).values()) if file and file.is_file() else b""


def file_of(sha256: str) -> Path:
    """The file in use for a SHA-256."""
    return _found[sha256]
