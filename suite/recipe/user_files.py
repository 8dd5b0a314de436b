"""A user's own Python file as part of a stage: known by its SHA-256, imported by its path, kept with the runs.

Methods, networks and data sets of the user's are objects in such a file, written `my_file.py:object`. What the file
imports of the files and folders beside it, or of its package, belongs to it. A worker, which may see the runs folder
alone, imports the copy that is kept there.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import shutil
import sys
import sysconfig
import tempfile
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from suite.recipe.errors import SuiteError
from suite.recipe.own_imports import Place, Whole, imports_of, parsed, place, place_of_module, with_imports

KEPT = "user_files"
"""The folder, in a runs folder and in a run directory, of the copies: KEPT/SHA256/my_file.py, or
KEPT/SHA256/my_package/my_file.py."""

BESIDE: list[Path] = []
"""Where a relative path is looked for after the working folder: the folders of the sweeps' files."""

_found: dict[str, Place] = {}
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
    given = Path(path).expanduser()
    bases: list[Path | None] = [None] if given.is_absolute() else [Path(), *BESIDE]
    places = [(base / given if base else given, base) for base in bases]
    for file, base in places:
        if file.is_file():
            return Reference(f"{file.name}:{wanted}", note(place(file, base)))
    looked = ", ".join(str(file.resolve().parent) for file, _ in places)
    raise SuiteError(f"no file {path} for {name!r}; looked in {looked}")


def note(where: Place, module: ModuleType | None = None) -> str:
    """The SHA-256 of a user's file, which is used from now on for what has it; `module` is what it was imported as."""
    sha256 = _sha256(where)
    _found.setdefault(sha256, where)
    if module is not None:
        _modules.setdefault(sha256, module)
    return sha256


def _sha256(where: Place) -> str:
    """In hex: of the file, where it imports nothing beside it, and else of the SHA-256 of it and of what it imports.

    A file's top-level function `sweep` is left out, so that a sweep of another seed in the same file repeats nothing.
    """
    whole = with_imports(where)
    parts = {
        name: hashlib.sha256(_without_sweep(content)).hexdigest() for name, content in whole.content.items()
    }
    own = where.file.relative_to(whole.root).as_posix()
    if len(parts) == 1:
        return parts[own]
    lines = [f"{name} {part}\n" for name, part in sorted(parts.items())]
    return hashlib.sha256("".join([f"{own}\n", *lines]).encode()).hexdigest()


def _without_sweep(content: bytes) -> bytes:
    tree = parsed(content) if b"def sweep" in content else None
    lines = content.splitlines(keepends=True)
    for node in reversed(tree.body if tree else []):
        if isinstance(node, ast.FunctionDef) and node.name == "sweep":
            first = min([node.lineno, *(made.lineno for made in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
    return b"".join(lines)


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
    known = next((sha256 for sha256, loaded in _modules.items() if loaded is module), None)
    sha256 = known or note(place_of_module(path, kind.__module__), module)
    return Reference(f"{path.name}:{kind.__qualname__}", sha256)


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
    where = _found.get(sha256)
    if where is None or not where.file.is_file():
        raise SuiteError(f"no copy of {name} with SHA-256 {sha256[:16]} is kept; plan the sweep again")
    if _sha256(where) != sha256:
        raise SuiteError(f"{where.file} has changed since it was planned; plan the sweep again")
    return _modules.setdefault(sha256, _imported_from(where, sha256))


def _imported_from(where: Place, sha256: str) -> ModuleType:
    file, whole = where.file, with_imports(where)
    _check_one_version(file, whole)
    for folder in (file.parent, whole.root):  # for what the file imports; last, so that it hides nothing
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    name = ".".join(file.relative_to(whole.root).with_suffix("").parts).removesuffix(".__init__")
    try:
        if any(imported.level for imported in imports_of(file.read_bytes())):
            return _in_package(file, name)
        return _by_itself(file, sha256)
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:
        raise broken(file, error) from error


def _in_package(file: Path, name: str) -> ModuleType:
    """A file that imports its own package, as a module of that."""
    importlib.invalidate_caches()  # the folder may have been made just now
    module = importlib.import_module(name)
    if Path(str(module.__file__)).read_bytes() != file.read_bytes():
        raise SuiteError(
            f"{file} is the module {name}, and this process has imported {module.__file__} as that; rename its folder"
        )
    return module


def _by_itself(file: Path, sha256: str) -> ModuleType:
    taken = file.stem in sys.modules or not file.stem.isidentifier()
    known = None if taken else importlib.util.find_spec(file.stem)
    free = not taken and (known is None or known.origin == str(file))
    name = file.stem if free else f"user_{file.stem}_{sha256[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_one_version(file: Path, whole: Whole) -> None:
    """Raise SuiteError where a file that this one imports was imported already with another content."""
    for name, content in whole.content.items():
        path = whole.root / name
        if path == file:
            continue
        folders = [folder for folder in (whole.root, file.parent) if path.is_relative_to(folder)]
        for module_name in {".".join(path.relative_to(folder).with_suffix("").parts) for folder in folders}:
            module = sys.modules.get(module_name.removesuffix(".__init__"))
            other = Path(str(getattr(module, "__file__", None) or ""))
            if other.is_file() and other.read_bytes() != content:
                raise SuiteError(
                    f"{file} imports {name}, and this process has imported {other}, which differs; run their stages "
                    f"in processes of their own"
                )


def broken(file: Path, error: BaseException) -> SuiteError:
    """What went wrong in a user's file, with its line, and that of the other file of the user's which it came to."""
    if isinstance(error, SyntaxError):
        return SuiteError(f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}")
    where, frames = str(file), traceback.extract_tb(error.__traceback__)
    own = [at for at, frame in enumerate(frames) if Path(frame.filename).absolute() == file.absolute()]
    where += f", line {frames[own[-1]].lineno}" if own else ""
    deeper = [frame for frame in frames[own[-1] + 1 if own else 0 :] if _is_users(frame.filename)]
    where += f", in {deeper[-1].filename}, line {deeper[-1].lineno}" if deeper else ""
    if isinstance(error, SystemExit):
        return SuiteError(
            f"{where}: it ends the process (exit status {error.code}), as a script does; put what it does when it is "
            f'run below `if __name__ == "__main__":`'
        )
    return SuiteError(f"{where}: {type(error).__name__}: {error}{_remedy(error)}")


def _is_users(file: str) -> bool:
    installed = file.startswith((sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<"))
    return not installed and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _remedy(error: BaseException) -> str:
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "; it is imported by itself: name it by its path from the folder that holds its package"
    if isinstance(error, ModuleNotFoundError):
        return "; install it, or put it beside the file or into the folder that the file's path is given from"
    return ""


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
    """Copy every file that the JSON of a stage refers to, with what it imports, into `folder`/KEPT/SHA256, once.
    Raises SuiteError where one has changed since."""
    for reference in references(data):
        kept = folder / KEPT / reference.sha256
        if kept.is_dir():
            continue
        where = _found[reference.sha256]
        if _sha256(where) != reference.sha256:
            raise SuiteError(f"{where.file} has changed since the sweep was made of it; plan the sweep again")
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
        for name, content in with_imports(where).content.items():
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
        kept, file_name = folder / KEPT / Path(sha256).name, Path(name.rpartition(":")[0]).name
        if sha256 in _found or not kept.is_dir() or not file_name:
            continue
        places = [place(file, kept) for file in sorted(kept.rglob(file_name)) if file.is_file()]
        same = [where for where in places if len(places) > 1 and _sha256(where) == sha256]
        if places:
            _found[sha256] = (same or places)[0]


def content_of(sha256: str) -> bytes:
    """The file in use for a SHA-256 with what it imports beside it; empty where there is none."""
    where = _found.get(sha256)
    return b"\n".join(with_imports(where).content.values()) if where and where.file.is_file() else b""


def file_of(sha256: str) -> Path:
    """The file in use for a SHA-256."""
    return _found[sha256].file
