"""The command that lists sweeps: those of the suite, and those of the runs folder."""

from __future__ import annotations

import ast
from pathlib import Path

from rich import get_console

from suite import sweeps as shipped
from suite.cli.options import RUNS, RunsOptions
from suite.cli.rows import Cell, Rows, literal
from suite.recipe.errors import SuiteError
from suite.record.status import Statuses
from suite.sweeps.stored import about, load_sweep


def sweeps(*, folders: RunsOptions = RUNS) -> int:
    """List the sweeps that can be launched, and those that were, with how far they are."""
    console = get_console()
    console.print("[bold]To launch[/] (suite launch NAME; suite launch NAME --help shows its options)")
    table = Rows(("sweep", "what it asks"), wrapped=("what it asks",))
    table.rows += [
        ((name, "cyan"), (_first_line(shipped.FOLDER / f"{name}.py"), "")) for name in shipped.names()
    ]
    console.print(table)
    console.print("or the path of a .py file of your own with a function sweep()\n")
    files = sorted((folders.runs / "sweeps").glob("*.json"))
    console.print(
        f"[bold]In {literal(str(folders.runs))}[/]" + ("" if files else ": none yet"), highlight=False
    )
    if files:
        table = Rows(("sweep", "stages", "done", "failed", "what it asks"), ("stages", "done", "failed"))
        table.wrapped = ("what it asks",)
        table.rows += [_recorded(folders.runs, file.stem) for file in files]
        console.print(table)
    return 0


def _first_line(file: Path) -> str:
    """Of the file's docstring; the file is not run."""
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


def _recorded(runs: Path, name: str) -> list[Cell]:
    try:
        statuses = Statuses(runs).of_all(load_sweep(runs, name))
    except SuiteError as error:
        return [(name, "cyan"), ("", ""), ("", ""), ("", ""), (str(error), "red")]
    done, failed = (sum(now.state == state for now in statuses) for state in ("done", "failed"))
    first = about(runs, name).partition("\n")[0]
    return [
        (name, "cyan"),
        (str(len(statuses)), ""),
        (str(done), "green"),
        (str(failed or ""), "bold red"),
        (first, ""),
    ]
