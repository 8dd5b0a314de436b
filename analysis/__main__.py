"""`suite report SWEEP`: the results of one sweep as files, and its table on the terminal; and its other commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from rich.console import Console

# Width of the table where there is no terminal to ask.
WIDTH = 200


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _complain(f"{message}; see {self.prog} --help")
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """The command line of the report."""
    made = _Parser(
        prog="suite report",
        description="The results of one sweep as files, and its table on the terminal.",
        epilog="other commands: `suite verdicts --help`, every published number judged by all sweeps; `suite diff "
        "--help`, what changed between two sweeps; `suite export --help`, all runs as Parquet or CSV",
    )
    made.add_argument("sweep", metavar="SWEEP", help="name of a planned sweep, such as quick")
    _add_runs(made)
    _add_from(made)
    _add_out(made, "where the folder SWEEP with the results is written")
    _add_readme(made, "SWEEP")
    return made


def verdicts_parser() -> argparse.ArgumentParser:
    """The command line of `verdicts`."""
    made = _Parser(
        prog="suite verdicts",
        description="Of every published number whether it was reproduced, by all runs of all sweeps in a folder.",
    )
    _add_runs(made)
    _add_out(made, "where the folder verdicts with verdicts.md and verdicts.csv is written")
    _add_readme(made, "verdicts")
    return made


def diff_parser() -> argparse.ArgumentParser:
    """The command line of `diff`."""
    made = _Parser(
        prog="suite diff",
        description="What changed from sweep A to sweep B, configuration by configuration, and whether by chance.",
        epilog="exit status: 0 nothing is significantly worse, 1 something is, or is not done that was done before, "
        "or nothing could be tested, 2 bad input",
    )
    made.add_argument("before", metavar="SWEEP_A", help="name of the sweep that is measured against")
    made.add_argument("after", metavar="SWEEP_B", nargs="?", help="name of the other (default: SWEEP_A)")
    _add_runs(made)
    made.add_argument(
        "--runs-b", type=Path, metavar="DIR", help="folder of the runs of SWEEP_B, where it is another"
    )
    _add_out(made, "where the folder SWEEP_A-SWEEP_B with diff.md and diff.csv is written")
    return made


def export_parser() -> argparse.ArgumentParser:
    """The command line of `export`."""
    made = _Parser(
        prog="suite export",
        description="All runs of a sweep as a typed table, a row a run, and beside it, with -epochs in its name, a "
        "row a metric of an epoch.",
    )
    made.add_argument("sweep", metavar="SWEEP", help="name of a planned sweep, such as quick")
    _add_runs(made)
    _add_from(made)
    made.add_argument("--parquet", type=Path, metavar="FILE", help="write both as Parquet")
    made.add_argument("--csv", type=Path, metavar="FILE", help="write both as CSV")
    return made


def _add_runs(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--runs", type=Path, default=Path(os.environ.get("SUITE_RUNS", "runs")), metavar="DIR",
        help="folder of the run directories (default: SUITE_RUNS, else runs)",
    )  # fmt: skip


def _add_from(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--from", dest="source", default="journals", metavar="SOURCE",
        help="journals (default), mlflow (MLFLOW_TRACKING_URI, else mlflow.db in the folder of the runs), or a "
        "runs.csv that this command wrote",
    )  # fmt: skip


def _add_readme(made: argparse.ArgumentParser, name: str) -> None:
    made.add_argument(
        "--readme", type=Path, metavar="FILE",
        help=f"also put the table, in short, between <!-- table: {name} --> and <!-- /table --> in FILE",
    )  # fmt: skip


def _add_out(made: argparse.ArgumentParser, what: str) -> None:
    made.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help=f"{what} (default: results)"
    )


def main(arguments: list[str] | None = None) -> int:
    """`suite report`: a command of COMMANDS, or the report of the sweep that is named."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in COMMANDS:
        return command(words[0], words[1:])
    return command("report", words)


def command(name: str, words: list[str]) -> int:
    """Do one of COMMANDS with the words that follow it; the exit status, 2 after one line that says what is wrong."""
    try:
        return COMMANDS[name](words)
    except (AnalysisError, OSError) as error:
        _complain(str(error))
        return 2


def _report(words: list[str]) -> int:
    options = parser().parse_args(words)
    # Imported here so that --help and a wrong argument answer at once.
    from analysis.page import write
    from analysis.report import latex, results, tables, terminal

    sweep, readme = options.sweep, options.readme
    if readme is not None:
        replaced(readme, sweep, "")
    found = results.load(options.runs, sweep, options.source)
    table = tables.joined(found.summary, found.comparison)
    folder = options.out / sweep
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("runs", found.marked), ("table", table), ("published", found.comparison)):
        rows.to_csv(folder / f"{name}.csv", index=False)
    texts = {
        "table.md": tables.markdown(found),
        "table.tex": latex.table(found),
        "summary.md": tables.summary(found),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    paths = [folder / name for name in ("runs.csv", "table.csv", "published.csv", *texts)]
    paths += write.write(found, folder / "report.html")
    if readme is not None:
        readme.write_text(replaced(readme, sweep, texts["summary.md"]), encoding="utf-8")
        paths.append(readme)

    console = _console()
    for section in tables.sections(table):
        shown = terminal.table(
            section.title, tables.COLUMNS, section.rows, tables.COLOURS, tables.LEAST, console.width
        )
        console.print(shown)
    for line in tables.notes(found):
        console.print(f"- {line}", markup=False, highlight=False)
    _print_paths(paths)
    for problem in found.marked["problem"].dropna():
        _complain(problem)
    return 0


def _diff(words: list[str]) -> int:
    if not words:
        raise AnalysisError(
            "diff wants SWEEP_A and SWEEP_B; see suite diff --help, "
            "and for the report of a sweep that is called diff: suite report diff"
        )
    options = diff_parser().parse_args(words)
    from analysis.compare import sweeps
    from analysis.report import diff, terminal

    after = (options.runs_b or options.runs, options.after or options.before)
    found = sweeps.load((options.runs, options.before), after)
    folder = options.out / f"{options.before}-{after[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    found.table.to_csv(folder / "diff.csv", index=False)
    (folder / "diff.md").write_text(diff.markdown(found), encoding="utf-8")
    console = _console()
    for title, rows in diff.sections(found):
        console.print(terminal.table(title, diff.COLUMNS, rows, diff.COLOURS, diff.LEAST, console.width))
    for line in diff.notes(found):
        console.print(f"- {line}", markup=False, highlight=False)
    _print_paths([folder / "diff.csv", folder / "diff.md"])
    style = "red" if found.is_worse else "green" if found.is_tested else "yellow"
    console.print(diff.summary(found), style=style, markup=False, highlight=False)
    return 0 if found.is_tested and not found.is_worse else 1


def _verdicts(words: list[str]) -> int:
    options = verdicts_parser().parse_args(words)
    from analysis.report import tables, terminal, verdicts

    if options.readme is not None:
        replaced(options.readme, "verdicts", "")
    judged = verdicts.load(options.runs)
    found, folder = judged.table, options.out / "verdicts"
    folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(folder / "verdicts.csv", index=False)
    (folder / "verdicts.md").write_text(verdicts.markdown(found), encoding="utf-8")
    if options.readme is not None:
        text = replaced(options.readme, "verdicts", verdicts.short(found))
        options.readme.write_text(text, encoding="utf-8")
    console = _console()
    console.print(
        terminal.table(
            "Published numbers",
            verdicts.COLUMNS,
            verdicts.cells(found),
            tables.COLOURS,
            verdicts.LEAST,
            console.width,
        )
    )
    _print_paths([folder / "verdicts.csv", folder / "verdicts.md"])
    console.print(verdicts.summary(found), markup=False, highlight=False)
    for problem in judged.problems:
        _complain(problem)
    return 0


def _export(words: list[str]) -> int:
    if not words:
        raise AnalysisError(
            "export wants SWEEP and --parquet FILE or --csv FILE; see suite export --help, "
            "and for the report of a sweep that is called export: suite report export"
        )
    options = export_parser().parse_args(words)
    if not options.parquet and not options.csv:
        raise AnalysisError("export wants a file to write; give --parquet FILE or --csv FILE, or both")
    from analysis.compare import configurations
    from analysis.report import export

    marked, curves = configurations.load(options.runs, options.sweep, options.source)
    _print_paths(export.write(marked, curves, options.parquet, options.csv))
    return 0


def _print_paths(paths: Sequence[Path]) -> None:
    console = _console()
    for path in paths:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


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


COMMANDS = {"report": _report, "verdicts": _verdicts, "diff": _diff, "export": _export}


if __name__ == "__main__":
    sys.exit(main())
