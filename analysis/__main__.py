"""`python -m analysis SWEEP`: the results of one sweep as files, and its table on the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.results import Results

# Width of the table where there is no terminal to ask.
WIDTH = 200


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _complain(f"{message}; see {self.prog} --help")
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(prog="python -m analysis", description=__doc__)
    made.add_argument("sweep", metavar="SWEEP", help="name of a planned sweep, such as quick")
    made.add_argument(
        "--runs", type=Path, default=Path(os.environ.get("SUITE_RUNS", "runs")), metavar="DIR",
        help="folder of the run directories (default: SUITE_RUNS, else runs)",
    )  # fmt: skip
    made.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR",
        help="where the folder SWEEP with the results is written (default: results)",
    )  # fmt: skip
    made.add_argument(
        "--readme", type=Path, metavar="FILE",
        help="also put the table between <!-- table: SWEEP --> and <!-- /table --> in FILE",
    )  # fmt: skip
    return made


def main(arguments: list[str] | None = None) -> int:
    """Write the results of a sweep; 0, or 2 after one line that says what is wrong."""
    options = parser().parse_args(arguments)
    try:
        _analyse(options.sweep, options.runs, options.out, options.readme)
    except (AnalysisError, OSError) as error:
        _complain(str(error))
        return 2
    return 0


def _analyse(sweep: str, runs: Path, out: Path, readme: Path | None) -> None:
    # Imported here so that --help and a wrong argument answer at once.
    from analysis import report, results, tables

    if readme is not None:
        replaced(readme, sweep, "")
    found = results.load(runs, sweep)
    table = tables.joined(found.summary, found.comparison)
    short = tables.summary(found.summary, found.marked)
    folder = out / sweep
    folder.mkdir(parents=True, exist_ok=True)
    found.marked.to_csv(folder / "runs.csv", index=False)
    table.to_csv(folder / "table.csv", index=False)
    found.comparison.to_csv(folder / "published.csv", index=False)
    text = tables.markdown(table, found.marked, found.comparison)
    (folder / "table.md").write_text(text, encoding="utf-8")
    (folder / "summary.md").write_text(short, encoding="utf-8")
    names = ("runs.csv", "table.csv", "published.csv", "table.md", "summary.md")
    paths = [folder / name for name in names] + _figures(found, folder)
    paths.append(report.write(found, folder / "report.html"))
    if readme is not None:
        readme.write_text(replaced(readme, sweep, short), encoding="utf-8")
        paths.append(readme)

    console = _console()
    for section in tables.sections(table):
        console.print(tables.terminal(section))
    for line in tables.notes(found.marked, found.comparison):
        console.print(f"- {line}", markup=False, highlight=False)
    for path in paths:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    for problem in found.marked["problem"].dropna():
        _complain(problem)


def _figures(found: Results, folder: Path) -> list[Path]:
    from analysis import plots, waterfall

    paths = []
    if found.chain is not None:
        found.chain.to_csv(folder / "steps.csv", index=False)
        (folder / "steps.md").write_text(waterfall.markdown(found.chain), encoding="utf-8")
        paths += [folder / "steps.csv", folder / "steps.md"]
    for name, figure in found.figures.items():
        paths += plots.save(figure, folder / name)
    return paths


def replaced(readme: Path, sweep: str, table: str) -> str:
    """The text of `readme` with `table` as its block for `sweep`; AnalysisError if it has not exactly one."""
    begin, end = f"<!-- table: {sweep} -->", "<!-- /table -->"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed or begin in rest:
        raise AnalysisError(
            f"{readme} has {text.count(begin)} blocks for {sweep!r}; put one {begin} and {end} in it"
        )
    return f"{head}{begin}\n{table}{end}{tail}"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH)


def _complain(message: str) -> None:
    _console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
