"""Every count is written with its noun in the right number: `1 job`, never `1 jobs`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLURALS = (
    "arrays|attempts|batches|cards|classes|comparisons|configurations|cores|differences|epochs|errors|files|GPUs|"
    "groups|hours|images|iterations|jobs|kills|labels|layers|levels|lines|loadings|methods|metrics|models|networks|"
    "nodes|numbers|operators|outputs|pages|pairs|points|processes|ranks|recipes|rows|runs|samples|seeds|stages|steps|"
    "sweeps|switches|tensors|tests|threads|trainings|tries|values|versions|weights|widths|workers"
)
COUNTED = re.compile(rf" (?:(?!of |in )[a-z-]+ )?(?:{PLURALS})\b")


def parts(node: ast.JoinedStr) -> Iterator[tuple[ast.FormattedValue, str]]:
    """Each value of an f-string with the text that follows it."""
    for value, after in zip(node.values, node.values[1:], strict=False):
        if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
            yield value, str(after.value)


def is_whole(value: ast.FormattedValue) -> bool:
    """Whether it may be a count: neither a fraction, a constant of the code nor a name."""
    if isinstance(value.format_spec, ast.JoinedStr) and "." in ast.unparse(value.format_spec):
        return False
    text = ast.unparse(value.value)
    return not re.search(r"\b[A-Z]{2,}\b|(name|split|where|file|axis|join)\b", text)


def test_no_count_stands_before_a_plural_of_its_own() -> None:
    found = []
    for folder in ("suite", "slurm", "analysis"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found += [
                        f"{file.relative_to(ROOT)}:{node.lineno}: {{{ast.unparse(value.value)}}}{text[:40]!r}"
                        for value, text in parts(node)
                        if is_whole(value) and COUNTED.match(text)
                    ]
    assert not found, "write it with suite.recipe.words.counted:\n" + "\n".join(found)
