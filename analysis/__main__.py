"""`suite report SWEEP`: the results of one sweep as files, and its table on the terminal; and its other commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, ParamSpec

from cyclopts import App, CycloptsError, Parameter

from analysis.errors import AnalysisError
from analysis.report.readme_block import replaced
from suite.record.files import printable
from suite.record.terminal_text import spell_what_cannot_be_written

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.compare.selection import Order

P = ParamSpec("P")

WIDTH = 200  # of the table where there is no terminal to ask

Sweep = Annotated[str, Parameter(name="SWEEP", help="name of a planned sweep, such as quick")]
Runs = Annotated[Path, Parameter(env_var="SUITE_RUNS", help="folder of the run directories")]
Source = Annotated[
    str,
    Parameter(
        name="--from",
        help="where to read the runs: journals, mlflow (MLFLOW_TRACKING_URI, else mlflow.db in --runs), or a runs.csv "
        "that this command wrote",
    ),
]
Out = Annotated[Path, Parameter(help="folder in which the results get a folder of their own")]
LEAST_WIDTH, MOST_WIDTH = 2.5, 20
"""Inches of a figure."""

Methods = Annotated[
    tuple[str, ...],
    Parameter(
        consume_multiple=True, show_default=False, help="show only these methods and the float networks"
    ),
]
Readme = Annotated[
    Path | None,
    Parameter(
        help="also write the table of sound methods, or the verdicts, into this Markdown file between "
        "<!-- table: SWEEP --> (or verdicts) and <!-- /table -->"
    ),
]


def main(arguments: list[str] | None = None) -> int:
    """`suite report`, `suite verdicts`, `suite diff`, `suite export`, or the report of the sweep that is named."""
    app = App(
        "suite",
        help="The results of one sweep as files, and its table on the terminal; and the other commands.",
        help_format="plaintext",
        version_flags=(),
        default_parameter=Parameter(negative=()),
        console=_console(),
    )
    for function in (report, verdicts, diff, export):
        app.command(function)
    app.default(report)
    words = sys.argv[1:] if arguments is None else arguments
    spell_what_cannot_be_written()
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        program = " ".join(["suite", *(error.command_chain or ["report"])])
        return _refuse(f"{str(error).strip()} See {program} --help")
    return command(*bound.args, **bound.kwargs) or 0


def _guarded(command: Callable[P, int]) -> Callable[P, int]:
    """The command; where it cannot do what it is asked, status 2 after one line that says what is wrong."""

    @wraps(command)
    def guarded(*args: P.args, **options: P.kwargs) -> int:
        try:
            return command(*args, **options)
        except (AnalysisError, OSError) as error:
            return _refuse(str(error))

    return guarded


@_guarded
def report(
    sweep: Sweep,
    /,
    *,
    runs: Runs = Path("runs"),
    source: Source = "journals",
    out: Out = Path("results"),
    readme: Readme = None,
    methods: Methods = (),
    order: Annotated[
        Literal["source", "given", "drop"],
        Parameter(help="order of the methods: by source, as given to --methods, or the smallest drop first"),
    ] = "source",
    width: Annotated[
        float | None,
        Parameter(help="width in inches of the figures' files, such as 3.5 for a column of a paper"),
    ] = None,
    png: Annotated[bool, Parameter(help="write each figure as PNG too")] = False,
    pdf: Annotated[bool, Parameter(help="write each figure as PDF too")] = False,
) -> int:
    """Write the table, the figures and report.html of a sweep, and show the table."""
    # No figure needs a window, and a backend that is not installed would end the import of matplotlib.
    os.environ["MPLBACKEND"] = "agg"
    # Imported here so that --help and a wrong argument answer at once.
    from analysis.read.run_folders import planned

    _check_choices(methods, order, width)
    if readme is not None:
        replaced(readme, sweep, "")
    if source == "journals":
        planned(runs, sweep)  # which raises AnalysisError where there is none
    kinds = ["png"] * png + ["pdf"] * pdf
    with _progress() as doing:
        doing(f"reading the runs of {sweep}")
        return _report(sweep, runs, source, out, readme, (methods, order, width), kinds, doing)


def _report(
    sweep: str,
    runs: Path,
    source: str,
    out: Path,
    readme: Path | None,
    shown: tuple[Sequence[str], Order, float | None],
    kinds: Sequence[str],
    doing: Callable[[str], None],
) -> int:
    from analysis.page import files
    from analysis.page.write import KINDS
    from analysis.report import results, sound_methods, tables, terminal

    found = results.load(runs, sweep, source, *shown)
    paths = files.write_all(found, out / sweep, (*KINDS, *kinds), doing)
    if readme is not None:
        readme.write_text(replaced(readme, sweep, sound_methods.table(found)), encoding="utf-8")
        paths.append(readme)

    console = _console()
    for section in tables.sections(tables.joined(found.summary, found.comparison)):
        console.print(
            terminal.table(
                section.title, tables.COLUMNS, section.rows, tables.COLOURS, tables.LEAST, console.width
            )
        )
    for line in tables.notes(found):
        console.print(f"- {line}", markup=False, highlight=False)
    _print_paths(paths)
    for problem in found.marked["problem"].dropna():
        _complain(problem)
    return 0


@_guarded
def diff(
    before: Annotated[str, Parameter(name="SWEEP_A", help="name of the sweep to compare with")],
    after: Annotated[
        str | None, Parameter(name="SWEEP_B", help="name of the other (default: SWEEP_A, in --runs-b)")
    ] = None,
    /,
    *,
    runs: Runs = Path("runs"),
    runs_b: Annotated[Path | None, Parameter(help="folder of the runs of SWEEP_B (default: --runs)")] = None,
    out: Out = Path("results"),
) -> int:
    """Show what changed from sweep A to sweep B, configuration by configuration, and whether by chance.

    Returns 0 where nothing is significantly worse; 1 where something is, or is not done that was done before, or
    nothing could be tested.
    """
    from analysis.compare import sweeps
    from analysis.report import diff as written
    from analysis.report import terminal

    after = after or before
    found = sweeps.load((runs, before), (runs_b or runs, after))
    folder = out / f"{before}-{after}"
    folder.mkdir(parents=True, exist_ok=True)
    found.table.to_csv(folder / "diff.csv", index=False)
    (folder / "diff.md").write_text(written.markdown(found), encoding="utf-8")
    console = _console()
    for title, rows in written.sections(found):
        console.print(
            terminal.table(title, written.COLUMNS, rows, written.COLOURS, written.LEAST, console.width)
        )
    for line in written.notes(found):
        console.print(f"- {line}", markup=False, highlight=False)
    _print_paths([folder / "diff.csv", folder / "diff.md"])
    style = "red" if found.is_worse else "green" if found.is_tested else "yellow"
    console.print(written.summary(found), style=style, markup=False, highlight=False)
    return 0 if found.is_tested and not found.is_worse else 1


@_guarded
def verdicts(*, runs: Runs = Path("runs"), out: Out = Path("results"), readme: Readme = None) -> int:
    """Judge every published number by all runs of all sweeps in a folder: was it reproduced?"""
    from analysis.report import tables, terminal, to_judge
    from analysis.report import verdicts as written

    if readme is not None:
        replaced(readme, "verdicts", "")
    judged = written.load(runs)
    found, folder = judged.table, out / "verdicts"
    folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(folder / "verdicts.csv", index=False)
    (folder / "verdicts.md").write_text(written.markdown(found), encoding="utf-8")
    if readme is not None:
        text = replaced(readme, "verdicts", written.short(found))
        readme.write_text(text, encoding="utf-8")
    console = _console()
    shown = "Published numbers", written.COLUMNS, written.cells(found), tables.COLOURS, written.LEAST
    console.print(terminal.table(*shown, console.width))
    _print_paths([folder / "verdicts.csv", folder / "verdicts.md"])
    for line in (written.summary(found), *to_judge.remedies(found)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for problem in judged.problems:
        _complain(problem)
    return 0


@_guarded
def export(
    sweep: Sweep,
    /,
    *,
    runs: Runs = Path("runs"),
    source: Source = "journals",
    parquet: Annotated[Path | None, Parameter(help="write both as Parquet")] = None,
    csv: Annotated[Path | None, Parameter(help="write both as CSV")] = None,
) -> int:
    """Write all runs of a sweep as a typed table, a row a run, and beside it, with -epochs in its name, a row a metric
    of an epoch."""
    if not parquet and not csv:
        raise AnalysisError("export wants a file to write; give --parquet FILE or --csv FILE, or both")
    from analysis.compare import configurations
    from analysis.report import export as written

    marked, curves = configurations.load(runs, sweep, source)
    _print_paths(written.write(marked, curves, parquet, csv))
    return 0


def _check_choices(methods: Sequence[str], order: Order, width: float | None) -> None:
    if order == "given" and not methods:
        raise AnalysisError("--order given is that of --methods; name them with --methods")
    if width is not None and not LEAST_WIDTH <= width <= MOST_WIDTH:
        raise AnalysisError(f"--width {width:g} is no width; give {LEAST_WIDTH} to {MOST_WIDTH} inches")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows what is being done: on a terminal in one line that goes away, else in a line each on standard error."""
    console = _console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
    else:
        yield lambda words: console.print(words, markup=False, highlight=False, soft_wrap=True)


def _print_paths(paths: Sequence[Path]) -> None:
    console = _console()
    for path in paths:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH)


def _refuse(message: str) -> int:
    """Say what the user has to mend, as the other commands do; the exit status."""
    _complain(f"error: {message}")
    return 2


def _complain(message: str) -> None:
    _console(stderr=True).print(
        printable(message), style="red", markup=False, highlight=False, soft_wrap=True
    )


if __name__ == "__main__":
    sys.exit(main())
