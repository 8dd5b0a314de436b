"""The command line: COMMANDS, at the end, lists its commands."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from suite.cli import launching
from suite.cli.analyses import ANALYSES, analyse
from suite.cli.launching import chosen_from, escaped, folders_of, show_pages
from suite.cli.options import parser
from suite.recipe import Pretrained, plan
from suite.recipe.errors import SuiteError
from suite.recipe.planning import matching
from suite.record.status import Statuses
from suite.sweeps.stored import find_stages, load_sweep, save_plan


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 something failed to run, 2 the user has to mend something."""
    words = sys.argv[1:] if words is None else list(words)
    if words and words[0] in ANALYSES:
        return analyse(words[0], words[1:])
    known = parser(__doc__, COMMANDS)
    arguments, rest = known.parse_known_args(words)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if not hasattr(arguments, "command"):
        known.print_help()
        return 2
    if rest and arguments.command not in TAKE_SWEEP_OPTIONS:
        known.error(f"unknown arguments: {' '.join(rest)}")
    arguments.sweep_words = rest
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return int(arguments.command(arguments, console))
    except SuiteError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {escaped(str(error))}", highlight=False, soft_wrap=True
        )
        return 2
    except OSError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {escaped(str(error))}", highlight=False, soft_wrap=True
        )
        return 2
    except KeyboardInterrupt:
        console.print("\nstopped; finished runs are kept, the same command goes on from here")
        return 130


def _interrupt(number: int, frame: object) -> None:
    """A closed terminal and a polite kill end a launch as Ctrl-C does: with its workers."""
    raise KeyboardInterrupt


def _plan(arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.tables import plan_summary, plan_table

    name, every, options, about = chosen_from(arguments)
    stages = matching(every, arguments.only)
    statuses = Statuses(arguments.runs).of_all(stages)
    pending = [now.stage for now in statuses if now.state != "done"]
    if any(isinstance(stage, Pretrained) for stage in plan(pending)):
        from suite.launch.preflight import check_checkpoints  # which waits for torch

        check_checkpoints(pending)
    note = save_plan(arguments.runs, name, options, every, about)
    console.print(plan_table(statuses))
    console.print(plan_summary(stages, sum(bool(stage.needs) for stage in stages), statuses))
    if note:
        console.print(f"[yellow]{escaped(note)}[/]", soft_wrap=True, highlight=False)
    if arguments.on or launching.options_of(arguments):
        launching.show_jobs(pending, arguments, console)
    return 0


def _run(arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.live import watched
    from suite.process.ranks import from_environment
    from suite.process.stop import REQUEUE, Stop
    from suite.record.lease import ReplacedError
    from suite.run.attempt import InterruptedRunError
    from suite.run.stage import run

    stop = Stop().listen()
    stages = find_stages(arguments.runs, arguments.keys)
    ranks = from_environment()
    failed = 0
    for stage in stages:
        if stage.key in _skipped():
            console.print(f"cancelled: {stage.name}")
            continue
        try:
            with watched(console, stage, arguments.runs, shown=ranks.writes):
                run(stage, ranks, folders_of(arguments), stop)
        except InterruptedRunError as asked:
            if ranks.writes:
                console.print(f"{stop.asked_by}: {stage.name}: {escaped(str(asked))}", soft_wrap=True)
            ranks.leave()
            return REQUEUE
        except ReplacedError as error:
            console.print(f"{stage.name}: {escaped(str(error))}", soft_wrap=True)
            return 1  # whoever took this stage takes the others too
        except Exception as error:
            failed += 1
            if not isinstance(error, SuiteError):
                traceback.print_exc()
            words = f"[red]failed[/] {stage.name}: {type(error).__name__}: {escaped(str(error))}"
            console.print(words, soft_wrap=True)
            if ranks.world_size > 1:
                return 1  # the other ranks may be at another stage by now, or gone
    ranks.leave()
    return 1 if failed else 0


def _skipped() -> list[str]:
    """The stages that were cancelled while this process works on others, from the file that SUITE_SKIPPED names."""
    file = Path(os.environ.get("SUITE_SKIPPED", ""))
    return list(json.loads(file.read_text())) if file.is_file() else []


def _sync(arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.tables import damage
    from suite.track import follow, store, sync

    name = Path(arguments.sweep).stem
    stages = load_sweep(arguments.runs, name)
    said, refused = set[str](), dict[str, str]()
    if arguments.follow:
        for words in follow.follow(name, stages, arguments.runs, arguments.report / name):
            console.print(escaped(words), soft_wrap=True, highlight=False)
            said.add(words)
    experiment = sync.sync(name, stages, arguments.runs, arguments.report / name, refused)
    for words in refused.values():
        if words not in said:
            console.print(escaped(words), soft_wrap=True, highlight=False)
    if words := damage(Statuses(arguments.runs).of_all(stages)):
        console.print(words, soft_wrap=True)
    console.print(f"MLflow has all runs of {name}. Open it with")
    console.print(store.how_to_open(experiment, arguments.runs), soft_wrap=True, highlight=False)
    show_pages(name, arguments, console)
    return 0


def _verify_resume(arguments: argparse.Namespace, console: Console) -> int:
    from suite.launch.verify_resume import stages, verify

    with tempfile.TemporaryDirectory() as folder:
        bad = 0
        for verdict in verify(stages(arguments.ranks), arguments.tries, arguments.seed, Path(folder)):
            words = "[green]equal[/]" if not verdict.differences else "[red]DIFFERENT[/]"
            name = f"{verdict.stage.name}, {verdict.stage.world_size} ranks"
            console.print(
                f"{words}  {name}: {verdict.tries} runs, {verdict.kills} kills, {verdict.resumed} resumed",
                soft_wrap=True,
            )
            for difference in verdict.differences:
                bad += 1
                console.print(escaped(difference[:300]), soft_wrap=True)
    console.print("every run went on to the same bits" if not bad else f"[red]{bad} differences[/]")
    return 1 if bad else 0


def _methods(arguments: argparse.Namespace, console: Console) -> int:
    from suite.methods import find

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("fields and their defaults")
    table.add_column("what it is")
    for name, kind in find().items():
        shown = [
            f"{f.name}={f.default!r}" if f.default is not MISSING else f.name
            for f in fields(kind)
            if f.name != "feed"
        ]
        module = sys.modules[kind.__module__]
        table.add_row(name, ", ".join(shown), (module.__doc__ or "").strip().splitlines()[0])
    console.print(table)
    return 0


COMMANDS = {
    "plan": _plan,
    "launch": launching.launch,
    "explain": launching.explain,
    "run": _run,
    "status": launching.status,
    "sync": _sync,
    "verify-resume": _verify_resume,
    "resume": launching.resume,
    "cancel": launching.cancel,
    "logs": launching.logs,
    "methods": _methods,
}

TAKE_SWEEP_OPTIONS = (_plan, launching.launch, launching.explain)
"""The commands that hand on what they do not know to the sweep."""
