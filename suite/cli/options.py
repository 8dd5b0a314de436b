"""The options of the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from suite import sweeps
from suite.cli.analyses import ANALYSES
from suite.launch.launcher import LAUNCHERS

Command = Callable[..., int]

EPILOG = """examples:
  suite plan quick                 what the quick sweep consists of, and what of it is done
  suite launch quick --on here     run it on this machine, all cores or GPUs
  suite status quick               how far it is
  suite report quick                   its table and plots
  suite launch cifar10 --help-sweep       the options of one sweep
  suite launch my/own_sweep.py --only amax
"""


def _shared_options() -> tuple[argparse.ArgumentParser, ...]:
    """The options of every command, of those that choose from a sweep, that name a launcher, and that launch."""
    folders = argparse.ArgumentParser(add_help=False)
    folders.add_argument(
        "--runs",
        type=Path,
        default=Path(os.environ.get("SUITE_RUNS", "runs")),
        help="folder of the run directories",
    )
    folders.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SUITE_DATA", "data")),
        help="folder of the data sets",
    )
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("sweep", help=f"{', '.join(sweeps.names())}, or the path of your own .py file")
    chosen.add_argument(
        "--only", metavar="PATTERN", help="only stages whose name holds PATTERN (* and ? allowed)"
    )
    chosen.add_argument("--name", help="another name for the sweep, to keep two variants apart")
    chosen.add_argument("--help-sweep", action="store_true", help="show the options of this sweep and leave")
    by = argparse.ArgumentParser(add_help=False)
    by.add_argument(
        "--on",
        choices=list(LAUNCHERS),
        help="here (the default): each stage a process of this machine; torchrun: those of several ranks over as many "
        "GPUs; slurm: jobs of a cluster, which need nothing left alive here",
    )
    by.add_argument(
        "--cluster",
        type=Path,
        metavar="FILE",
        help="what a cluster is asked for, like slurm/cluster.toml; alone it means --on slurm",
    )
    by.add_argument(
        "--workers",
        type=int,
        help="processes of this machine at a time (default: one a GPU, else one a core)",
    )
    launching = argparse.ArgumentParser(add_help=False, parents=[by])
    launching.add_argument("--download", action="store_true", help="fetch data sets that are not in --data")
    return folders, chosen, by, launching


def _add_gpus_per_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--gpus-per-run",
        type=int,
        metavar="N",
        help="ranks that share each training, instead of what the sweep says; not with --on here",
    )


def _add_replace(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--replace", action="store_true", help="take the place of a sweep of other stages under the same name"
    )


def parser(about: str | None, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the command line: each command with its options and, as `command`, its function."""
    whole = argparse.ArgumentParser(
        prog="suite",
        allow_abbrev=False,
        description=about,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folders, chosen, by, launching = _shared_options()
    subparsers = whole.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, about: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = subparsers.add_parser(
            name, help=about, description=about, parents=[folders, *parents], allow_abbrev=False
        )
        made.set_defaults(command=commands[name])
        return made

    about = (
        "show each stage of a sweep: key, what it is, what it needs, done or pending; with --on also the jobs; what "
        "was launched stays"
    )
    add("plan", about, chosen, by)
    launch = add("launch", "run a sweep; what is done already is not repeated", chosen, launching)
    _add_gpus_per_run(launch)
    _add_replace(launch)
    about = "run a source's steps from published to corrected, one switch at a time"
    explain = add("explain", about, launching)
    _add_replace(explain)
    explain.add_argument("source", choices=["000", "001", "002", "003", "004"], help="the source's number")
    _add_gpus_per_run(explain)
    explain.set_defaults(sweep="explain", only=None, help_sweep=False)
    run = add("run", "run single stages in this process")
    run.add_argument("keys", nargs="+", metavar="KEY", help="keys as plan shows them, or their beginnings")
    _add_launched_commands(add, launching)
    sync = add("sync", "bring MLflow up to date with a sweep's journals and its report; repeats safely")
    sync.add_argument("sweep", help="name of a launched sweep")
    sync.add_argument(
        "--report", type=Path, default=Path("results"), help="folder where analysis wrote SWEEP/"
    )
    sync.add_argument(
        "--follow", action="store_true", help="go on, a few seconds behind, until all stages are final"
    )
    about = "kill runs at random moments and show that they go on to the same weights, bit for bit"
    check = add("verify-resume", about)
    check.add_argument("--tries", type=int, default=1, help="runs to kill of each kind (default: 1)")
    check.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of ranks (default: 1 2)")
    check.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    for name, about in ANALYSES.items():
        subparsers.add_parser(name, help=about, add_help=False)
    add("methods", "list the quantization methods, their fields and sources")
    return whole


def _add_launched_commands(
    add: Callable[..., argparse.ArgumentParser], launching: argparse.ArgumentParser
) -> None:
    """The commands on a sweep that was launched, by whichever launcher."""
    launched = argparse.ArgumentParser(add_help=False)
    launched.add_argument("sweep", help="name of a launched sweep")
    launched.add_argument("--only", metavar="PATTERN", help="only stages whose name holds PATTERN")
    about = "show state, top-1, age and job of each stage of a launched sweep, and its errors"
    status = add("status", about, launched)
    status.add_argument("--watch", action="store_true", help="show it anew every five seconds")
    add("resume", "launch again what was launched and is not done, in the same way", launched, launching)
    add("cancel", "ask what runs of a sweep to save and end, and take out what waits", launched)
    logs = add("logs", "show what the job of a stage wrote")
    logs.add_argument("key", help="its key, or the beginning of it; with --errors the name of a sweep")
    logs.add_argument("--follow", action="store_true", help="go on until the stage has ended")
    logs.add_argument(
        "--errors", action="store_true", help="the first line of the error of each failed run of a sweep"
    )
