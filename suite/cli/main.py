"""The command line: COMMANDS lists its commands."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence

import rich
from cyclopts import App, CycloptsError, Parameter
from rich import get_console
from rich.console import Console
from rich.markup import escape

from suite.record.files import printable
from suite.record.terminal_text import default_shown, spell_what_cannot_be_written

COMMANDS = {
    "sweeps": (
        "suite.cli.listing:sweeps",
        "List the sweeps that can be launched, and those in the runs folder.",
    ),
    "methods": (
        "suite.cli.methods:methods",
        "List the quantization methods, their settings and their sources.",
    ),
    "plan": (
        "suite.cli.launching:show_plan",
        "Show what a launch would run, and start nothing.\n\n"
        "Each stage is shown with its key, its name, what it needs, and whether it is done; with --on or --cluster "
        "also the jobs. A sweep that was launched is not changed.",
    ),
    "launch": (
        "suite.cli.launching:launch",
        "Run a sweep, on this machine or a cluster.\n\n"
        "Finished stages are not run again: after a stop the same "
        "command continues.",
    ),
    "explain": (
        "suite.cli.launching:explain",
        "Run a source as published, then with one defect after the other corrected.\n\n"
        "`suite report explain-SOURCE` then draws what each correction changes.",
    ),
    "status": (
        "suite.cli.following:status",
        "Show the state, accuracy and errors of each stage of a sweep.",
    ),
    "logs": (
        "suite.cli.following:logs",
        "Show the log of a stage, or the errors of a sweep.",
    ),
    "resume": (
        "suite.cli.launching:resume",
        "Launch the unfinished stages of a sweep again, in the same way.",
    ),
    "cancel": (
        "suite.cli.following:cancel",
        "Stop a sweep: running stages save their state and end, waiting ones do not start.\n\n"
        "`suite resume` continues from there.",
    ),
    "report": (
        "analysis.__main__:report",
        "Write the tables, the figures and report.html of a sweep.\n\n"
        "They are written to results/SWEEP, and the table is shown. This works while the sweep runs.",
    ),
    "verdicts": (
        "analysis.__main__:verdicts",
        "Compare every published number with the runs: is it reproduced?\n\n"
        "All sweeps of the runs folder count. A number that cannot be judged is listed with the command that would "
        "judge it.",
    ),
    "sensitivity": (
        "suite.cli.sensitivity:sensitivity",
        "Measure what rounding each layer of a finished stage costs.\n\n"
        "Weights and inputs of a layer are measured separately.",
    ),
    "diff": (
        "analysis.__main__:diff",
        "Compare two sweeps: what changed, and whether by chance.\n\n"
        "Exit status: 0 nothing is significantly worse; 1 something is, or is not done that was done before, or "
        "nothing could be tested; 2 bad input.",
    ),
    "export": (
        "suite.cli.exporting:export",
        "Write a quantized network as ONNX and other formats, or the runs of a sweep as a table.\n\n"
        "A network that is written is compared with its simulation.",
    ),
    "dataflow": (
        "suite.cli.exporting:dataflow",
        "Show the integer arithmetic of one layer, step by step, for one value.",
    ),
    "latency": (
        "suite.cli.latency:latency",
        "Measure the latency of finished recipes in 8-bit integers and of their float networks.\n\n"
        "Every runtime that is installed is measured. `suite report` draws accuracy against latency.",
    ),
    "sync": (
        "suite.cli.following:sync",
        "Copy the runs of a sweep and its report to MLflow, and show how to open it.",
    ),
    "inspect": (
        "suite.cli.inspecting:inspect",
        "Show what a checkpoint file holds, and the command that quantizes it.\n\n"
        "Its accuracy on CIFAR-10 or CIFAR-100 is measured where that is in --data.",
    ),
    "run": (
        "suite.cli.running:run",
        "Run stages in this process, by the keys that `suite plan` shows.",
    ),
    "verify-resume": (
        "suite.cli.running:verify_resume",
        "Kill runs at random moments and check that they continue to the same weights, bit for bit.",
    ),
}
"""Each command: its function, which is imported when the command is given, and what it does. The first paragraph is
shown in the list of commands."""

USAGE = {
    **dict.fromkeys(("plan", "launch", "status", "resume", "cancel", "report", "sync"), "SWEEP [OPTIONS]"),
    "explain": "SOURCE [OPTIONS]",
    "logs": "KEY [OPTIONS]",
    "sensitivity": "KEY [OPTIONS]",
    "diff": "SWEEP_A [SWEEP_B] [OPTIONS]",
    "export": "WHAT [OPTIONS]",
    "dataflow": "KEY LAYER [OPTIONS]",
    "latency": "KEY... [OPTIONS]",
    "inspect": "FILE [OPTIONS]",
    "run": "KEY... [OPTIONS]",
}
"""What follows the name of a command that takes arguments: these first, as in all examples."""


EXAMPLES = """Examples:
  suite sweeps                       list the sweeps
  suite plan quick                   list its stages, and which are done
  suite launch quick --on here       run it on this machine's cores or GPUs
  suite status quick                 show its progress
  suite report quick                 write its tables and figures
  suite launch cifar10 --help        show the options of a sweep
  suite launch my_sweep.py           run a sweep of your own
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 something failed to run, 2 the user has to mend something."""
    words = sys.argv[1:] if words is None else list(words)
    spell_what_cannot_be_written()
    # rich looks at the terminal, and in a pipe at COLUMNS, else it takes 80.
    columns = os.environ.get("COLUMNS", "")
    has_width = sys.stdout.isatty() or (columns.isdecimal() and int(columns) > 0)
    rich.reconfigure(width=None if has_width else 160, emoji=False)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return _do(words)
    except KeyboardInterrupt:
        get_console().print("\nstopped; finished runs are kept, the same command goes on from here")
        return 130
    except Exception as error:
        problem = printable(_explained(error))
    Console(stderr=True).print(f"[bold red]error:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    return 2


def _explained(error: Exception) -> str:
    """What the user has to mend; any other error is raised. Imports what no command without an error needs."""
    from suite.recipe.errors import SuiteError
    from suite.sweeps.options import explained

    if isinstance(error, CycloptsError):
        return f"{explained(error)} See {' '.join(['suite', *(error.command_chain or ())])} --help"
    if not isinstance(error, (SuiteError, OSError)):
        raise error
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{error.filename} cannot be written: its disk is read-only; choose another folder with --runs or --out"
    if isinstance(error, PermissionError) and error.filename:
        return (
            f"{error.filename} cannot be read or written by this user; have its owner permit it, or choose another "
            f"folder with --runs or --out"
        )
    return str(error)


def command_line() -> App:
    """All commands with their options."""
    app = App(
        name="suite",
        help="Measure what quantizing a network costs: run sweeps of quantization methods and report them.",
        help_format="plaintext",
        help_epilogue=EXAMPLES,
        version_flags=(),
        group_parameters="Options",
        default_parameter=Parameter(negative=(), consume_multiple=True, show_default=default_shown),
        console=get_console(),
    )
    for index, (name, (function, about)) in enumerate(COMMANDS.items()):
        usage = f"Usage: suite {name} {USAGE[name]}" if name in USAGE else None
        app.command(function, name=name, help=about, usage=usage, sort_key=index, help_epilogue="")
    return app


def _do(words: Sequence[str]) -> int:
    """Do a command; its exit status."""
    app = command_line()
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    status = command(*bound.args, **bound.kwargs)
    if command != app.help_print:
        return int(status)
    if words and words[0] in ("plan", "launch", "explain"):
        from suite import sweeps

        named = [word for word in words if word in sweeps.names() or word.endswith(".py")]
        for sweep in named[:1]:
            given = ("source",) if words[0] == "explain" else ()
            sweeps.find(sweep).options.print_help(get_console(), without=given)
    return 0 if words else 2


def _interrupt(number: int, frame: object) -> None:
    """SIGHUP of a closed terminal and SIGTERM end a launch as Ctrl-C does: with its workers."""
    raise KeyboardInterrupt
