"""The command line: COMMANDS, at the end, lists its commands."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import MISSING, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slurm import commands
from suite import sweeps
from suite.cli.analyses import ANALYSES, analyse
from suite.cli.options import parser
from suite.recipe import Pretrained, Stage, over_ranks, plan
from suite.recipe.errors import SuiteError
from suite.recipe.planning import matching
from suite.record.files import Folders
from suite.record.status import Status, Statuses
from suite.record.synced import Known, mlflow_pages, tracked
from suite.sweeps.stored import check_keeps, find_stages, load_sweep, save_plan, save_sweep


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
    if rest and arguments.command not in (_plan, _launch, _explain):
        known.error(f"unknown arguments: {' '.join(rest)}")
    arguments.sweep_words = rest
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return int(arguments.command(arguments, console))
    except SuiteError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {_escaped(str(error))}", highlight=False, soft_wrap=True
        )
        return 2
    except OSError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {_escaped(str(error))}", highlight=False, soft_wrap=True
        )
        return 2
    except KeyboardInterrupt:
        console.print("\nstopped; finished runs are kept, the same command goes on from here")
        return 130


def _interrupt(number: int, frame: object) -> None:
    """A closed terminal and a polite kill end a launch as Ctrl-C does: with its workers."""
    raise KeyboardInterrupt


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _folders(arguments: argparse.Namespace) -> Folders:
    return Folders(arguments.runs, arguments.data)


def _chosen(arguments: argparse.Namespace) -> tuple[str, tuple[Stage, ...], dict[str, object], str]:
    """(name, all stages in plan order, the sweep's options, what it asks)."""
    sweep = sweeps.find(arguments.sweep)
    if arguments.help_sweep:
        sweep.parser().print_help()
        raise SystemExit(0)
    listed, options = sweep.stages(arguments.sweep_words)
    return arguments.name or sweep.name, plan(listed), options, sweep.about


def _plan(arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.tables import plan_summary, plan_table

    name, every, options, about = _chosen(arguments)
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
        console.print(f"[yellow]{_escaped(note)}[/]", soft_wrap=True, highlight=False)
    if arguments.cluster or arguments.on:
        commands.show_jobs(pending, arguments, console)
    return 0


def _launch(arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.live import Watch, looking_at_files
    from suite.cli.tables import status_summary
    from suite.launch.launcher import launch
    from suite.launch.local import Here, default_places
    from suite.launch.preflight import check, check_idle
    from suite.launch.unchanged import check_unchanged
    from suite.track import follow, sync

    places = default_places() if arguments.workers is None else arguments.workers
    if places < 1:
        raise SuiteError(f"--workers {places} is too few; use 1 or more")
    name, stages, options, about = _chosen(arguments)
    if arguments.gpus_per_run is not None:
        stages, options = _over_ranks(stages, options, arguments)
    folders = _folders(arguments)
    if not arguments.replace:
        check_keeps(folders.runs, name, stages)
    if arguments.on == "slurm":
        save_sweep(folders.runs, name, options, stages, about)
        return commands.submit(name, matching(stages, arguments.only), arguments, console)
    chosen = matching(stages, arguments.only)
    statuses = Statuses(folders.runs).of_all(chosen)
    check_unchanged(statuses, folders.data)
    pending = [now.stage for now in statuses if now.state != "done"]
    if pending:
        most_ranks = places if arguments.on == "torchrun" else 1
        with looking_at_files(console) as report:
            check_idle(pending, folders)
            check(pending, folders, most_ranks, arguments.download, report)
    save_sweep(folders.runs, name, options, stages, about)
    here = Here(folders, min(places, max(1, sum(stage.world_size for stage in pending))))
    launch(pending, here, parts=here.places)
    words = f"{name}: {len(pending)} of {len(chosen)} stages to run" if pending else f"{name}: all is done"
    console.print(words + (f", {here.places} processes at a time" if pending else ""))
    sync.prepare(folders.runs)
    behind = follow.Follower(name, stages, folders.runs)
    behind.start()
    try:
        with closing(here.work()) as ticks:
            watch = Watch(console, chosen, folders.runs)
            watch.follow(ticks)
    finally:
        behind.finish()
        if behind.error:
            console.print(f"[yellow]MLflow is behind:[/] {_escaped(str(behind.error))}", soft_wrap=True)
            console.print(f"no run is lost; bring it up to date with: suite sync {name}")
        for words in behind.refused.values():
            console.print(_escaped(words), soft_wrap=True, highlight=False)
    ended = watch.statuses.of_all(chosen)
    console.print(status_summary(ended))
    for now in ended:
        if now.state == "failed":
            console.print(
                f"[red]{now.stage.name}[/] ({now.stage.key}): {_escaped(now.error)}", soft_wrap=True
            )
    _show_pages(name, arguments, console)
    unsaid = [] if any(now.state == "failed" for now in ended) else here.died.values()
    for words in unsaid:
        console.print(f"[red]a worker ended:[/] {_escaped(words)}", soft_wrap=True)
    return 0 if all(now.state == "done" for now in ended) else 1


def _show_pages(name: str, arguments: argparse.Namespace, console: Console) -> None:
    for what, link in mlflow_pages(arguments.runs, name).items():
        console.print(f"MLflow, {what}: {link}", soft_wrap=True, highlight=False)


def _over_ranks(
    stages: tuple[Stage, ...], options: dict[str, object], arguments: argparse.Namespace
) -> tuple[tuple[Stage, ...], dict[str, object]]:
    ranks = arguments.gpus_per_run
    if arguments.on == "here":
        raise SuiteError("--gpus-per-run shares a training between processes; use it with --on torchrun")
    if ranks < 1:
        raise SuiteError(f"--gpus-per-run {ranks} is too few; use 1 or more")
    return plan(over_ranks(stage, ranks) for stage in stages), {**options, "gpus_per_run": str(ranks)}


def _explain(arguments: argparse.Namespace, console: Console) -> int:
    arguments.name = f"explain-{arguments.source}"
    arguments.sweep_words = ["--source", arguments.source, *arguments.sweep_words]
    status = _launch(arguments, console)
    console.print(f"its waterfall: suite report {arguments.name}")
    return status


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
                run(stage, ranks, _folders(arguments), stop)
        except InterruptedRunError as asked:
            if ranks.writes:
                console.print(f"{stop.asked_by}: {stage.name}: {_escaped(str(asked))}", soft_wrap=True)
            ranks.leave()
            return REQUEUE
        except ReplacedError as error:
            console.print(f"{stage.name}: {_escaped(str(error))}", soft_wrap=True)
            return 1  # whoever took this stage takes the others too
        except Exception as error:
            failed += 1
            if not isinstance(error, SuiteError):
                traceback.print_exc()
            words = f"[red]failed[/] {stage.name}: {type(error).__name__}: {_escaped(str(error))}"
            console.print(words, soft_wrap=True)
            if ranks.world_size > 1:
                return 1  # the other ranks may be at another stage by now, or gone
    ranks.leave()
    return 1 if failed else 0


def _skipped() -> list[str]:
    """The stages that were cancelled while this process works on others, from the file that SUITE_SKIPPED names."""
    file = Path(os.environ.get("SUITE_SKIPPED", ""))
    return list(json.loads(file.read_text())) if file.is_file() else []


def _status(arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.live import shown, watch_status

    gc.set_threshold(
        50_000
    )  # thousands of stages are many values, and all stay: a quarter of the time otherwise
    name = Path(arguments.sweep).stem
    stages = matching(load_sweep(arguments.runs, name), arguments.only)

    seen, known = Statuses(arguments.runs), Known()

    def look() -> tuple[list[Status], str]:
        statuses, note = seen.of_all(stages), ""
        if (arguments.runs / "slurm").is_dir():
            statuses, note = commands.with_jobs(statuses, arguments)
        return tracked(statuses, arguments.runs, name, known), note

    if arguments.watch:
        watch_status(console, look)
    console.print(shown(*look()))
    _show_pages(name, arguments, console)
    return 0


def _sync(arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.tables import damage
    from suite.track import follow, sync

    name = Path(arguments.sweep).stem
    stages = load_sweep(arguments.runs, name)
    said, refused = set[str](), dict[str, str]()
    if arguments.follow:
        for words in follow.follow(name, stages, arguments.runs, arguments.report / name):
            console.print(_escaped(words), soft_wrap=True, highlight=False)
            said.add(words)
    experiment = sync.sync(name, stages, arguments.runs, arguments.report / name, refused)
    for words in refused.values():
        if words not in said:
            console.print(_escaped(words), soft_wrap=True, highlight=False)
    if words := damage(Statuses(arguments.runs).of_all(stages)):
        console.print(words, soft_wrap=True)
    console.print(f"MLflow has all runs of {name}. Open it with")
    console.print(sync.how_to_open(experiment, arguments.runs), soft_wrap=True, highlight=False)
    _show_pages(name, arguments, console)
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
                console.print(_escaped(difference[:300]), soft_wrap=True)
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
    "launch": _launch,
    "explain": _explain,
    "run": _run,
    "status": _status,
    "sync": _sync,
    "verify-resume": _verify_resume,
    "resume": commands.resume,
    "cancel": commands.cancel,
    "logs": commands.logs,
    "methods": _methods,
}
