"""A few lines of Python that show a difference, and what they print."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from torch import Tensor

from benchmarks.conformance.compare import Compared
from benchmarks.conformance.settings import Range
from suite.recipe.errors import in_a_line

LINES = """\
import torch
{imports}
from benchmarks.conformance.toolkits import TOOLKITS

x = {x}
setting = SETTINGS["{setting}"]
{range_}for name in ("ours", "{toolkit}"):
    print(name, {shown})
"""
SHOWN = {
    "grid": '[getattr(TOOLKITS[name].range(x, setting), end) for end in ("quant_min", "quant_max")]',
    "scale": "TOOLKITS[name].range(x, setting).scale.tolist()",
    "zero point": "TOOLKITS[name].range(x, setting).zero_point.tolist()",
    "codes": "TOOLKITS[name].fake(x, grid, setting).tolist()",
    "clipped share": "TOOLKITS[name].fake(x, grid, setting).tolist()",
    "gradient": "gradient(TOOLKITS[name], x, grid, setting)[1].tolist()",
}


def lines(found: Compared) -> str:
    """The program of a difference; run from the project's root."""
    assert found.x is not None
    imports = [
        "from benchmarks.conformance.settings import SETTINGS" + ("" if found.range_ is None else ", Range")
    ]
    if found.of == "gradient":
        imports.insert(0, "from benchmarks.conformance.compare import gradient")
    return LINES.format(
        imports="\n".join(imports),
        x=_numbers(found.x),
        setting=found.setting.name,
        range_="" if found.range_ is None else f"grid = {_range(found.range_)}\n",
        toolkit=found.toolkit,
        shown=SHOWN[found.of],
    )


def printed(program: str) -> str:
    """What it prints; an error is its last line."""
    out = io.StringIO()
    with redirect_stdout(out):
        try:
            exec(program, {})
        except Exception as error:
            print(in_a_line(error))
    return out.getvalue()


def differs(output: str, toolkit: str) -> bool:
    """Whether the two lines of a reproducer tell something else."""
    results = [line.split(" ", 1)[1] if line.startswith("ours ") else line for line in output.splitlines()]
    return len(results) == 2 and results[0] != results[1].removeprefix(f"{toolkit} ")


def _range(range_: Range) -> str:
    scale, zero_point = _numbers(range_.scale), _numbers(range_.zero_point)
    return f"Range({scale}, {zero_point}, {range_.quant_min}, {range_.quant_max})"


def _numbers(values: Tensor) -> str:
    """A tensor as it is written, each float32 exactly."""
    return f"torch.tensor({_list(values.tolist())})"


def _list(values: object) -> str:
    if isinstance(values, list):
        return "[" + ", ".join(_list(value) for value in values) + "]"
    return f"{values:.9g}" if "." in f"{values:.9g}" or "e" in f"{values:.9g}" else f"{values:.1f}"
