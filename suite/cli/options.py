"""The options of the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from suite import sweeps
from suite.cli.analyses import ANALYSES

Command = Callable[..., int]

EPILOG = """examples:
  suite plan quick                 what the quick sweep consists of, and what of it is done
  suite launch quick --on here     run it on this machine, all cores or GPUs
  suite status quick               how far it is
  suite report quick                   its table and plots
  suite launch cifar10 --help-sweep       the options of one sweep
  suite launch my/own_sweep.py --only amax
"""


def _shared_options() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """The options of every command, of those that choose from a sweep, and of those that launch."""
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
    launching = argparse.ArgumentParser(add_help=False)
    launching.add_argument(
        "--on",
        default="here",
        choices=["here", "torchrun", "slurm"],
        help="here: each stage a process of this machine; torchrun: those of several ranks over as many GPUs; slurm: "
        "jobs of a cluster, which need nothing left alive here",
    )
    launching.add_argument(
        "--cluster", type=Path, metavar="FILE", help="what the cluster is asked for, like slurm/cluster.toml"
    )
    launching.add_argument(
        "--workers", type=int, help="processes at a time (default: one a GPU, else one a core)"
    )
    launching.add_argument(
        "--gpus-per-run",
        type=int,
        metavar="N",
        help="ranks that share each training, instead of what the sweep says; with --on torchrun",
    )
    launching.add_argument(
        "--replace", action="store_true", help="take the place of a sweep of other stages under the same name"
    )
    launching.add_argument("--download", action="store_true", help="fetch data sets that are not in --data")
    return folders, chosen, launching


def parser(about: str | None, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the command line: each command with its options and, as `command`, its function."""
    whole = argparse.ArgumentParser(
        prog="suite",
        allow_abbrev=False,
        description=about,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folders, chosen, launching = _shared_options()
    subparsers = whole.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, about: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = subparsers.add_parser(
            name, help=about, description=about, parents=[folders, *parents], allow_abbrev=False
        )
        made.set_defaults(command=commands[name])
        return made

    plan = add(
        "plan",
        "show each stage of a sweep: key, what it is, what it needs, done or pending; what was launched stays",
        chosen,
    )
    plan.add_argument(
        "--on", choices=["slurm"], help="show the jobs and scripts, and what the cluster refuses"
    )
    plan.add_argument(
        "--cluster", type=Path, metavar="FILE", help="what the cluster is asked for; as --on slurm"
    )
    add("launch", "run a sweep; what is done already is not repeated", chosen, launching)
    about = "run a source's steps from published to corrected, one switch at a time"
    explain = add("explain", about, launching)
    explain.add_argument("source", choices=["000", "001", "002", "003", "004"], help="the source's number")
    explain.set_defaults(sweep="explain", only=None, help_sweep=False)
    run = add("run", "run single stages in this process")
    run.add_argument("keys", nargs="+", metavar="KEY", help="keys as plan shows them, or their beginnings")
    status = add("status", "show state, top-1 and age of each stage of a launched sweep, and its errors")
    status.add_argument("sweep", help="name of a launched sweep")
    status.add_argument("--only", metavar="PATTERN", help="only stages whose name holds PATTERN")
    status.add_argument("--watch", action="store_true", help="show it anew every five seconds")
    sync = add("sync", "bring MLflow up to date with a sweep's journals and its report; repeats safely")
    sync.add_argument("sweep", help="name of a launched sweep")
    sync.add_argument(
        "--report", type=Path, default=Path("results"), help="folder where analysis wrote SWEEP/"
    )
    sync.add_argument(
        "--follow", action="store_true", help="go on, a few seconds behind, until all stages are final"
    )
    _add_cluster_commands(add)
    about = "kill runs at random moments and show that they go on to the same weights, bit for bit"
    check = add("verify-resume", about)
    check.add_argument("--tries", type=int, default=1, help="runs to kill of each kind (default: 1)")
    check.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of ranks (default: 1 2)")
    check.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    for name, about in ANALYSES.items():
        subparsers.add_parser(name, help=about, add_help=False)
    add("methods", "list the quantization methods, their fields and sources")
    return whole


def _add_cluster_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    resume = add("resume", "submit to the cluster what a launched sweep still lacks")
    resume.add_argument("--cluster", type=Path, metavar="FILE", help="what the cluster is asked for")
    resume.add_argument("--download", action="store_true", help="fetch data sets that are not in --data")
    resume.add_argument("sweep", help="name of a launched sweep")
    resume.add_argument("--only", metavar="PATTERN", help="only stages whose name holds PATTERN")
    cancel = add("cancel", "cancel the jobs of a sweep on the cluster")
    cancel.add_argument("sweep", help="name of a launched sweep")
    cancel.add_argument("--only", metavar="PATTERN", help="only stages whose name holds PATTERN")
    logs = add("logs", "show what the job of a stage wrote")
    logs.add_argument("key", help="its key, or the beginning of it; with --errors the name of a sweep")
    logs.add_argument(
        "--errors", action="store_true", help="the first line of the error of each failed run of a sweep"
    )
