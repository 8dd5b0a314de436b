"""The packages of the analysis import downwards: reading, comparing, drawing, reporting, the page."""

from __future__ import annotations

import ast

from fakes import ROOT

LAYERS = ("read", "compare", "draw", "report", "page")


def test_imports_of_the_analysis_point_down() -> None:
    checked = 0
    for number, layer in enumerate(LAYERS):
        for file in sorted((ROOT / "analysis" / layer).glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                if module.startswith("analysis.") and module != "analysis.errors":
                    assert LAYERS.index(module.split(".")[1]) <= number, f"{file} imports {module}"
                    checked += 1
    assert checked > 60


def test_tables_and_texts_are_made_without_drawing() -> None:
    for layer in ("read", "compare", "report"):
        for file in sorted((ROOT / "analysis" / layer).glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [module]
                assert not [name for name in names if name.startswith(("analysis.draw", "matplotlib"))], file
