"""The commands that launch stages and ask after them: the same code for all launchers."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console

from suite import sweeps
from suite.launch import launched, launcher
from suite.launch.launcher import Cancelled, Launcher
from suite.recipe import Stage, over_ranks, plan
from suite.recipe.errors import SuiteError
from suite.recipe.planning import matching, only
from suite.record.files import Folders
from suite.record.status import Status, Statuses
from suite.record.synced import Known, mlflow_pages, tracked
from suite.sweeps.stored import check_keeps, find_stages, load_sweep, save_sweep

FOLLOW_SECONDS = 0.5
"""Between two looks at a log that is followed."""


def folders_of(arguments: argparse.Namespace) -> Folders:
    """Where runs and data are."""
    return Folders(arguments.runs, arguments.data)


def escaped(text: str) -> str:
    """Text that the console shall show as it is."""
    return text.replace("[", r"\[")


def chosen_from(
    arguments: argparse.Namespace,
) -> tuple[str, tuple[Stage, ...], dict[str, object], str]:
    """(name, all stages in plan order, the sweep's options, what it asks)."""
    sweep = sweeps.find(arguments.sweep)
    if arguments.help_sweep:
        sweep.parser().print_help()
        raise SystemExit(0)
    listed, options = sweep.stages(arguments.sweep_words)
    return arguments.name or sweep.name, plan(listed), options, sweep.about


def options_of(arguments: argparse.Namespace) -> dict[str, object]:
    """The options of a launcher that were given."""
    given = {name: getattr(arguments, name, None) for name in ("workers", "cluster")}
    return {name: value for name, value in given.items() if value is not None}


def show_jobs(pending: Sequence[Stage], arguments: argparse.Namespace, console: Console) -> None:
    """The jobs that a launch would submit, in full. Raises SuiteError for what the launcher would refuse."""
    chosen = launcher.made(arguments.on, folders_of(arguments), **options_of(arguments))
    chosen.check(pending)
    preview = chosen.preview(pending)
    for title, text in preview.jobs:
        console.print(f"\n[bold]{escaped(title)}[/]", soft_wrap=True)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(preview.total)


def launch(arguments: argparse.Namespace, console: Console) -> int:
    """Run a sweep by the launcher that is asked for; what is done already is not repeated."""
    options = options_of(arguments)
    by = launcher.made(arguments.on, folders_of(arguments), **options)
    name, stages, sweep_options, about = chosen_from(arguments)
    if arguments.gpus_per_run is not None:
        stages, sweep_options = _over_ranks(stages, sweep_options, arguments.gpus_per_run, by)
    chosen = matching(stages, arguments.only)
    if not arguments.replace:
        check_keeps(arguments.runs, name, stages)

    def record() -> None:
        save_sweep(arguments.runs, name, sweep_options, stages, about)
        launched.record_launched(arguments.runs, name, by.name, options, [stage.key for stage in chosen])

    return _submit(name, stages, chosen, by, record, arguments, console)


def resume(arguments: argparse.Namespace, console: Console) -> int:
    """Launch again what was launched of a sweep and is not done, as it was launched the last time."""
    name = Path(arguments.sweep).stem
    stages = load_sweep(arguments.runs, name, checked=True)
    before = launched.last_launched(arguments.runs, name)
    on, options = arguments.on, options_of(arguments)
    if before and not options and on in (None, before.on):
        on, options = before.on, dict(before.options)
    if before is None and on is None and not options:
        raise SuiteError(
            f"no launch of {name} is recorded in {arguments.runs}; say how to launch it with --on"
        )
    by = launcher.made(on, folders_of(arguments), **options)
    listed = [stage for stage in stages if before is None or stage.key in before.keys]
    if not listed:
        raise SuiteError(f"nothing that was launched of {name} is in its plan by now; launch it anew")
    chosen = plan(listed) if arguments.only is None else matching(stages, arguments.only)

    def record() -> None:
        launched.record_launched(arguments.runs, name, by.name, options, [stage.key for stage in chosen])

    return _submit(name, stages, chosen, by, record, arguments, console)


def _submit(
    name: str,
    stages: tuple[Stage, ...],
    chosen: tuple[Stage, ...],
    by: Launcher,
    record: Callable[[], None],
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    """Check, `record` and submit those of the `chosen` stages that are not done; watch them where that is needed."""
    from suite.cli.live import looking_at_files
    from suite.launch.preflight import check
    from suite.launch.unchanged import check_unchanged

    folders = folders_of(arguments)
    statuses = Statuses(folders.runs).of_all(chosen)
    check_unchanged(statuses, folders.data)
    pending = [now.stage for now in statuses if now.state != "done"]
    if pending:
        by.check(pending)
        with looking_at_files(console) as report:
            check(pending, folders, by.most_ranks, arguments.download, report, by.on_gpu)
    record()
    sent = by.submit(pending)
    words = f"{sent.stages} of {len(chosen)} stages {sent.words}" if pending else "all is done"
    console.print(f"{name}: {words}")
    for line in sent.lines:
        console.print(escaped(line), soft_wrap=True)
    ticks = by.watch()
    if ticks is None:
        console.print(f"how far it is: suite status {name}")
        return 0
    with _mlflow_beside(name, stages, folders.runs, console), closing(ticks):
        from suite.cli.live import Watch

        watch = Watch(console, chosen, folders.runs)
        watch.follow(ticks)
    return _report_end(name, watch.statuses.of_all(chosen), arguments, console)


@contextmanager
def _mlflow_beside(name: str, stages: Sequence[Stage], runs: Path, console: Console) -> Iterator[None]:
    """Keep MLflow up to date meanwhile, and say what it lacks in the end."""
    from suite.track import follow, store

    store.prepare(runs)
    behind = follow.Follower(name, stages, runs)
    behind.start()
    try:
        yield
    finally:
        behind.finish()
        if behind.error:
            console.print(f"[yellow]MLflow is behind:[/] {escaped(str(behind.error))}", soft_wrap=True)
            console.print(f"no run is lost; bring it up to date with: suite sync {name}")
        for words in behind.refused.values():
            console.print(escaped(words), soft_wrap=True, highlight=False)


def _report_end(name: str, ended: Sequence[Status], arguments: argparse.Namespace, console: Console) -> int:
    from suite.cli.tables import status_summary

    console.print(status_summary(ended))
    for now in ended:
        if now.state == "failed":
            console.print(
                f"[red]{escaped(now.stage.name)}[/] ({now.stage.key}): {escaped(now.error)}", soft_wrap=True
            )
    show_pages(name, arguments, console)
    return 0 if all(now.state == "done" for now in ended) else 1


def show_pages(name: str, arguments: argparse.Namespace, console: Console) -> None:
    """The links to the sweep's pages in MLflow."""
    for what, link in mlflow_pages(arguments.runs, name).items():
        console.print(f"MLflow, {what}: {link}", soft_wrap=True, highlight=False)


def _over_ranks(
    stages: tuple[Stage, ...], options: dict[str, object], ranks: int, by: Launcher
) -> tuple[tuple[Stage, ...], dict[str, object]]:
    if ranks < 1:
        raise SuiteError(f"--gpus-per-run {ranks} is too few; use 1 or more")
    if ranks > by.most_ranks:
        raise SuiteError(
            f"--gpus-per-run {ranks} shares a training between {ranks} processes, and --on {by.name} gives it up to "
            f"{by.most_ranks}; use --on torchrun on a machine of {ranks} GPUs, or fewer"
        )
    return plan(over_ranks(stage, ranks) for stage in stages), {**options, "gpus_per_run": str(ranks)}


def explain(arguments: argparse.Namespace, console: Console) -> int:
    """Run a source's steps from published to corrected."""
    arguments.name = f"explain-{arguments.source}"
    arguments.sweep_words = ["--source", arguments.source, *arguments.sweep_words]
    ended = launch(arguments, console)
    console.print(f"its waterfall: suite report {arguments.name}")
    return ended


def cancel(arguments: argparse.Namespace, console: Console) -> int:
    """Cancel what waits or runs of a sweep, or of some of its stages."""
    name = Path(arguments.sweep).stem
    every = load_sweep(arguments.runs, name)
    keys = [stage.key for stage in (every if arguments.only is None else only(every, arguments.only))]
    done = Cancelled()
    for by in launcher.every(folders_of(arguments)):
        done += by.cancel(keys)
    others = f", and {done.stages} stages of jobs that go on with others" if done.stages else ""
    console.print(f"{done.jobs} jobs of {name} cancelled{others}; resume {name} launches them again")
    if done.note:
        console.print(escaped(done.note), soft_wrap=True)
    return 0


def _with_jobs(statuses: Sequence[Status], arguments: argparse.Namespace) -> tuple[list[Status], str]:
    """The statuses with what the launchers know of the jobs, and a note on what they cannot know."""
    statuses, notes = list(statuses), []
    for by in launcher.every(folders_of(arguments)):
        statuses, note = by.status(statuses)
        notes.append(note)
    return statuses, "; ".join(filter(None, notes))


def status(arguments: argparse.Namespace, console: Console) -> int:
    """Show how far the stages of a launched sweep are."""
    from suite.cli.live import shown, watch_status

    gc.disable()  # thousands of stages are many values that all stay: to search them for others costs a sixth
    name = Path(arguments.sweep).stem
    stages = matching(load_sweep(arguments.runs, name), arguments.only)
    seen, known = Statuses(arguments.runs), Known()

    def look() -> tuple[list[Status], str]:
        statuses, note = _with_jobs(seen.of_all(stages), arguments)
        return tracked(statuses, arguments.runs, name, known), note

    if arguments.watch:
        gc.enable()
        watch_status(console, look)
    console.print(shown(*look()))
    show_pages(name, arguments, console)
    return 0


def logs(arguments: argparse.Namespace, console: Console) -> int:
    """Show what the last job of a stage wrote; or the first line of the error of each failed run of a sweep."""
    if arguments.errors:
        return _errors(arguments, console)
    [stage] = find_stages(arguments.runs, [arguments.key])
    if not arguments.follow and not _files(stage, arguments):
        raise SuiteError(f"no job of {stage.name} ({stage.key}) has written anything yet")
    shown: dict[Path, int] = {}
    seen = Statuses(arguments.runs)
    while True:
        [now], _ = _with_jobs(seen.of_all([stage]), arguments)
        for file in _files(stage, arguments):
            _print_from(file, shown)
        if not arguments.follow or now.state not in ("running", "queued"):
            return 0
        time.sleep(FOLLOW_SECONDS)


def _files(stage: Stage, arguments: argparse.Namespace) -> list[Path]:
    """The logs of the last job of a stage, whoever launched it."""
    found = [by.logs(stage.key) for by in launcher.every(folders_of(arguments))]
    return max(filter(None, found), key=lambda files: max(f.stat().st_mtime for f in files), default=[])


def _print_from(file: Path, shown: dict[Path, int]) -> None:
    """Print what a log has beyond what was `shown` of it, in bytes."""
    with file.open("rb") as stream:
        stream.seek(shown.get(file, 0))
        text = stream.read()
        shown[file] = stream.tell()
    sys.stdout.write(text.decode(errors="replace"))
    sys.stdout.flush()


def _errors(arguments: argparse.Namespace, console: Console) -> int:
    stages = load_sweep(arguments.runs, Path(arguments.key).stem)
    found, note = _with_jobs(Statuses(arguments.runs).of_all(stages), arguments)
    failed = [now for now in found if now.state == "failed"]
    for now in failed:
        console.print(f"[cyan]{now.stage.key}[/] {escaped(now.stage.name)}", highlight=False)
        console.print(f"  {now.cause}: {now.error}", style="red", markup=False, soft_wrap=True)
    console.print(note or f"{len(failed)} of {len(found)} runs failed")
    return 0
