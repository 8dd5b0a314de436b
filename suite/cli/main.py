"""The command line: COMMANDS lists its commands."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence

import rich
from cyclopts import App, CycloptsError, Parameter
from rich import get_console
from rich.console import Console
from rich.markup import escape

from suite.record.files import printable
from suite.record.spelled import spell_what_cannot_be_written

COMMANDS = {
    "sweeps": (
        "suite.cli.listing:sweeps",
        "List the sweeps that can be launched, and those that were, with how far they are.",
    ),
    "methods": ("suite.cli.methods:methods", "List the quantization methods, their fields and sources."),
    "plan": (
        "suite.cli.launching:show_plan",
        "Show what a launch would run: each stage with its key, what it is, what it needs, done or pending; with --on "
        "or --cluster also the jobs. Nothing is started, and what was launched stays.",
    ),
    "launch": (
        "suite.cli.launching:launch",
        "Run a sweep, on this machine unless --on says otherwise. What is done already is not repeated, so the same "
        "command goes on after a stop.",
    ),
    "explain": (
        "suite.cli.launching:explain",
        "Run a source's steps from published to corrected, one switch at a time; `suite report` draws what each cost.",
    ),
    "status": (
        "suite.cli.following:status",
        "Show how far a launched sweep is: state, top-1, time since the last event and error of each stage.",
    ),
    "logs": (
        "suite.cli.following:logs",
        "Show what the job of a stage wrote, or why runs of a sweep failed.",
    ),
    "resume": (
        "suite.cli.launching:resume",
        "Launch again what was launched and is not done, in the same way.",
    ),
    "cancel": (
        "suite.cli.following:cancel",
        "Ask what runs of a sweep to save and end, and take out what waits. `suite resume` goes on from there.",
    ),
    "report": (
        "analysis.__main__:report",
        "Write the tables, the figures and report.html of a sweep into results/SWEEP, and show its table. Works while "
        "the sweep runs.",
    ),
    "verdicts": (
        "analysis.__main__:verdicts",
        "Judge every published number by all runs of the folder: was it reproduced? Names the command that would "
        "judge what is not judged.",
    ),
    "sensitivity": (
        "suite.cli.sensitivity:sensitivity",
        "Measure what rounding each layer of a finished stage costs, weights and inputs apart.",
    ),
    "diff": (
        "analysis.__main__:diff",
        "Show what changed from sweep A to sweep B, and whether by chance. Exit status: 0 nothing is significantly "
        "worse; 1 something is, or is not done that was done before, or nothing could be tested; 2 bad input.",
    ),
    "export": (
        "suite.cli.exporting:export",
        "Write a recipe's quantized network as ONNX, compared with its simulation, or all runs of a sweep as a table.",
    ),
    "dataflow": (
        "suite.cli.exporting:dataflow",
        "Show how one layer of a finished recipe is computed in integers, step by step, for one value.",
    ),
    "latency": (
        "suite.cli.latency:latency",
        "Measure how long finished recipes take as integers, and their float networks, in every runtime that is here.",
    ),
    "sync": (
        "suite.cli.following:sync",
        "Bring MLflow up to date with a sweep's runs and its report, and say how to open it.",
    ),
    "inspect": (
        "suite.cli.inspecting:inspect",
        "Say what a checkpoint file is: its network, its accuracy where the data is at hand, and the command that "
        "quantizes it.",
    ),
    "run": (
        "suite.cli.running:run",
        "Run single stages in this process, by the keys that `suite plan` shows.",
    ),
    "verify-resume": (
        "suite.cli.running:verify_resume",
        "Kill runs at random moments and show that they go on to the same weights, bit for bit.",
    ),
}
"""Each command: its function, which is imported when the command is given, and what it does."""


EXAMPLES = """examples:
  suite sweeps                            what can be launched, and what was
  suite plan quick                        what the quick sweep consists of, and what of it is done
  suite launch quick --on here            run it on this machine, all cores or GPUs
  suite status quick                      how far it is
  suite report quick                      its table and plots
  suite launch cifar10 --help             the options of one sweep
  suite launch my/own_sweep.py --only amax
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 something failed to run, 2 the user has to mend something."""
    words = sys.argv[1:] if words is None else list(words)
    spell_what_cannot_be_written()
    rich.reconfigure(width=None if sys.stdout.isatty() else 160, emoji=False)
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
    return str(error)


def command_line() -> App:
    """All commands with their options."""
    app = App(
        name="suite",
        help="Sweeps of quantization methods: plan them, run them, follow them, report them.",
        help_format="plaintext",
        help_epilogue=EXAMPLES,
        version_flags=(),
        group_parameters="Options",
        default_parameter=Parameter(
            negative=(), consume_multiple=True, show_default=lambda value: None if value is False else value
        ),
        console=get_console(),
    )
    for place, (name, (function, about)) in enumerate(COMMANDS.items()):
        app.command(function, name=name, help=about, sort_key=place, help_epilogue="")
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
    """A closed terminal and a polite kill end a launch as Ctrl-C does: with its workers."""
    raise KeyboardInterrupt
