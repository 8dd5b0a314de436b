"""The commands that plan and launch a sweep: the same code for all launchers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich import get_console
from rich.console import Console
from rich.markup import escape

from suite import sweeps
from suite.cli.following import show_pages
from suite.cli.methods import listed_sources, print_source
from suite.cli.options import (
    FOLDERS,
    LAUNCH,
    LAUNCHER,
    PLAN,
    Download,
    ExplainWords,
    FolderOptions,
    LaunchedName,
    LauncherOptions,
    LaunchOptions,
    Name,
    Only,
    PlanOptions,
    SweepName,
    SweepWords,
)
from suite.data.complete import completed
from suite.launch import launched, launcher
from suite.launch.launcher import Launcher, Preview
from suite.recipe import Pretrained, Stage, over_ranks, plan
from suite.recipe.errors import SuiteError
from suite.recipe.planning import matching
from suite.recipe.words import counted
from suite.record.files import Folders
from suite.record.status import Status, Statuses
from suite.sweeps.stored import check_keeps, load_sweep, save_plan, save_sweep


def _planned(
    sweep: str, words: Sequence[str], name: str | None, data: Path
) -> tuple[str, tuple[Stage, ...], dict[str, object], str]:
    """(name, all stages in plan order, the sweep's options, what it asks)."""
    found = sweeps.find(sweep)
    listed, options = found.stages(words)
    return name or found.name, plan(completed(listed, data)), options, found.about


def _show_jobs(preview: Preview) -> None:
    """The jobs that a launch would submit, in full."""
    console = get_console()
    for title, text in preview.jobs:
        console.print(f"\n[bold]{escape(title)}[/]", soft_wrap=True)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(preview.total)


def show_plan(
    sweep: SweepName,
    /,
    *words: SweepWords,
    only: Only = None,
    name: Name = None,
    how: PlanOptions = PLAN,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Show each stage of a sweep: key, what it is, what it needs, done or pending; with --on also the jobs; what was
    launched stays."""
    from suite.cli.tables import plan_summary, plan_table

    # What is wrong with a launcher is said alone, not below a table of all stages.
    console, by = get_console(), launcher.made(how.on, folders, **how.given)
    name, every, options, about = _planned(sweep, words, name, folders.data)
    if how.gpus_per_run is not None:
        every, options = _over_ranks(every, options, how.gpus_per_run, by)
    stages = matching(every, only)
    statuses = Statuses(folders.runs).of_all(stages)
    pending = [now.stage for now in statuses if now.state != "done"]
    if any(isinstance(stage, Pretrained) for stage in plan(pending)):
        from suite.launch.preflight import check_checkpoints  # which waits for torch

        check_checkpoints(pending)
    preview = by.preview(pending) if how != PLAN else None
    try:
        note = save_plan(folders.runs, name, options, every, about)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        note = f"{folders.runs} is read-only, so the plan is not recorded, and `run` does not find its keys"
    console.print(plan_table(statuses))
    console.print(plan_summary(stages, sum(bool(stage.needs) for stage in stages), statuses))
    if note:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True, highlight=False)
    if preview:
        _show_jobs(preview)
    return 0


def launch(
    sweep: SweepName,
    /,
    *words: SweepWords,
    only: Only = None,
    name: Name = None,
    how: LaunchOptions = LAUNCH,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Run a sweep; what is done already is not repeated."""
    by = launcher.made(how.on, folders, **how.given)
    if not get_console().is_terminal:
        get_console().print(f"planning {Path(sweep).stem}")
    name, stages, options, about = _planned(sweep, words, name, folders.data)
    if how.gpus_per_run is not None:
        stages, options = _over_ranks(stages, options, how.gpus_per_run, by)
    chosen = matching(stages, only)
    if not how.replace:
        check_keeps(folders.runs, name, stages)

    def record() -> None:
        save_sweep(folders.runs, name, options, stages, about)
        launched.record_launched(folders.runs, name, by.name, how.given, [stage.key for stage in chosen])

    return _submit(name, stages, chosen, by, record, folders, how.download)


def explain(
    source: Annotated[
        Literal["000", "001", "002", "003", "004"],
        Parameter(help=f"number of the source: {listed_sources()}"),
    ],
    /,
    *words: ExplainWords,
    how: LaunchOptions = LAUNCH,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Run a source's steps from published to corrected, one switch at a time."""
    name = f"explain-{source}"
    print_source(source)
    ended = launch("explain", "--source", source, *words, name=name, how=how, folders=folders)
    get_console().print(f"its waterfall: suite report {name}")
    return ended


def resume(
    sweep: LaunchedName,
    /,
    *,
    only: Only = None,
    how: LauncherOptions = LAUNCHER,
    download: Download = False,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Launch again what was launched and is not done, in the same way."""
    name = Path(sweep).stem
    stages, before = load_sweep(folders.runs, name, checked=True), launched.last_launched(folders.runs, name)
    on, options = how.on, how.given
    if before and not options and on in (None, before.on):
        on, options = before.on, dict(before.options)
    if before is None and on is None and not options:
        raise SuiteError(f"no launch of {name} is recorded in {folders.runs}; say how to launch it with --on")
    by = launcher.made(on, folders, **options)
    listed = [stage for stage in stages if before is None or stage.key in before.keys]
    if not listed:
        raise SuiteError(f"nothing that was launched of {name} is in its plan by now; launch it anew")
    chosen = matching(plan(listed), only)

    def record() -> None:
        launched.record_launched(folders.runs, name, by.name, options, [stage.key for stage in chosen])

    return _submit(name, stages, chosen, by, record, folders, download)


def _submit(
    name: str,
    stages: tuple[Stage, ...],
    chosen: tuple[Stage, ...],
    by: Launcher,
    record: Callable[[], None],
    folders: Folders,
    download: bool,
) -> int:
    """Check, `record` and submit those of the `chosen` stages that are not done; watch them where that is needed."""
    from suite.cli.live import checking_files
    from suite.launch.preflight import check
    from suite.launch.unchanged import check_unchanged

    console, statuses = get_console(), Statuses(folders.runs).of_all(chosen)
    check_unchanged(statuses, folders.data)
    pending = [now.stage for now in statuses if now.state != "done"]
    if pending:
        if not console.is_terminal:  # on a terminal a bar shows it
            console.print(
                f"{name}: {counted(len(pending), 'stage')} to run; checking data, checkpoints and disk"
            )
        by.check(pending)
        with checking_files(console) as report:
            check(pending, folders, by.most_ranks, download, report, by.on_gpu)
    record()
    sent = by.submit(pending)
    words = f"{sent.stages:,} of {counted(len(chosen), 'stage')} {sent.words}" if pending else "all is done"
    console.print(f"{name}: {words}")
    for line in sent.lines:
        console.print(escape(line), soft_wrap=True)
    ticks = by.watch()
    if ticks is None:
        print_next(name, running=True)
        return 0
    with _mlflow_beside(name, stages, folders.runs, console), closing(ticks):
        from suite.cli.live import Watch

        watch = Watch(console, chosen, folders.runs)
        watch.follow(ticks)
    return _report_end(name, watch.statuses.of_all(chosen), folders.runs)


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
            console.print(f"[yellow]MLflow is behind:[/] {escape(str(behind.error))}", soft_wrap=True)
            console.print(f"no run is lost; bring it up to date with: suite sync {name}")
        for words in behind.refused.values():
            console.print(escape(words), soft_wrap=True, highlight=False)


def _report_end(name: str, ended: Sequence[Status], runs: Path) -> int:
    from suite.cli.tables import status_summary

    console = get_console()
    console.print(status_summary(ended))
    for now in ended:
        if now.state == "failed":
            console.print(
                f"[red]{escape(now.stage.name)}[/] ({now.stage.key}): {escape(now.error)}", soft_wrap=True
            )
    show_pages(name, runs)
    print_next(name, failed=any(now.state == "failed" for now in ended))
    return 0 if all(now.state == "done" for now in ended) else 1


def print_next(name: str, *, running: bool = False, failed: bool = False) -> None:
    """The commands that one wants next."""
    steps = [(f"suite status {name} --watch", "how far it is")] if running else []
    if failed:
        steps += [
            (f"suite logs {name} --errors", "why runs failed"),
            (f"suite resume {name}", "run them again"),
        ]
    steps += [
        (f"suite report {name}", "tables, figures and report.html"),
        (f"suite sync {name}", "MLflow, and the command that opens it"),
    ]
    steps += [] if running else [(f"suite status {name}", "each stage")]
    wide = max(len(command) for command, _ in steps)
    for index, (command, about) in enumerate(steps):
        get_console().print(
            f"{'next:' if not index else '':5} {command:{wide}}  {about}", highlight=False, soft_wrap=True
        )


def _over_ranks(
    stages: tuple[Stage, ...], options: dict[str, object], ranks: int, by: Launcher
) -> tuple[tuple[Stage, ...], dict[str, object]]:
    if ranks < 1:
        raise SuiteError(f"--gpus-per-run {ranks} is too few; use 1 or more")
    if ranks > by.most_ranks:
        raise SuiteError(
            f"--gpus-per-run {ranks} shares a training between {counted(ranks, 'process')}, and --on {by.name} gives "
            f"it up to {by.most_ranks}; use --on torchrun on a machine of {counted(ranks, 'GPU')}, or fewer"
        )
    return plan(over_ranks(stage, ranks) for stage in stages), {**options, "gpus_per_run": str(ranks)}
