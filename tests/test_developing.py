"""docs/developing.md names functions that exist, and in no more lines than can be read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "developing.md").read_text()
FUNCTION = r"`([\w/]+\.py):([\w.]+)`"


def names_in(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """The functions and classes of a file, and their methods as `Class.method`."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from names_in(node.body, f"{node.name}.")


def test_every_function_that_is_named_exists() -> None:
    named = re.findall(FUNCTION, TEXT)
    missing = [
        f"{file}:{name}"
        for file, name in named
        if not (ROOT / file).is_file() or name not in names_in(ast.parse((ROOT / file).read_text()).body)
    ]
    assert named and not missing, f"correct docs/developing.md: {', '.join(missing)}"


def test_the_walk_has_at_most_60_functions_each_once_and_numbered() -> None:
    steps = re.findall(rf"^(\d+)\. {FUNCTION} ", TEXT, re.MULTILINE)
    assert [int(number) for number, *_ in steps] == list(range(1, len(steps) + 1))
    assert 40 <= len(steps) == len({tuple(place) for _, *place in steps}) <= 60
