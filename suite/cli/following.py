"""The commands on a sweep that was launched: the same code for all launchers."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich import get_console

from suite.cli.live import doing
from suite.cli.options import FOLDERS, RUNS, FolderOptions, LaunchedName, Only, RunsOptions
from suite.cli.rows import literal
from suite.cli.tables import damage, shown
from suite.launch import launcher
from suite.launch.launcher import Cancelled
from suite.recipe import Stage, planning
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.files import Folders, printable
from suite.record.status import Status, Statuses
from suite.record.synced import Known, mlflow_pages, tracked
from suite.record.waiting import announced
from suite.sweeps.stored import find_stages, load_sweep

FOLLOW_SECONDS = 0.5
"""Between two checks of a log that is followed."""


def cancel(sweep: LaunchedName, /, *, only: Only = None, folders: RunsOptions = RUNS) -> int:
    """Ask what runs of a sweep to save and end, and take out what waits."""
    console, name = get_console(), Path(sweep).stem
    stages = load_sweep(folders.runs, name)
    keys = [stage.key for stage in (stages if only is None else planning.matching_alone(stages, only))]
    done = Cancelled()
    for by in launcher.every(folders):
        done += by.cancel(keys)
    others = f", and {counted(done.stages, 'stage')} of jobs that go on with others" if done.stages else ""
    if done.jobs or done.stages:
        console.print(
            f"{counted(done.jobs, 'job')} of {name} cancelled{others}; `suite resume {name}` launches them again"
        )
    else:
        console.print(f"nothing of {name} runs or waits, so nothing was cancelled")
    if done.note:
        console.print(literal(done.note), soft_wrap=True)
    return 0


def _with_jobs(statuses: Sequence[Status], folders: Folders) -> tuple[list[Status], str]:
    """The statuses with what the launchers know of the jobs, and a note on what they cannot know."""
    statuses, notes = list(statuses), []
    for by in launcher.every(folders):
        statuses, note = by.status(statuses)
        notes.append(note)
    return statuses, "; ".join(filter(None, notes))


def status(
    sweep: LaunchedName,
    /,
    *,
    only: Only = None,
    watch: Annotated[bool, Parameter(help="repeat it every five seconds, until Ctrl-C")] = False,
    folders: RunsOptions = RUNS,
) -> int:
    """Show state, top-1, age and job of each stage of a launched sweep, and its errors."""
    # Thousands of stages are many values that all stay: a quarter of the time otherwise.
    gc.set_threshold(50_000)
    console, name = get_console(), Path(sweep).stem
    stages = planning.matching(load_sweep(folders.runs, name), only)
    seen, known = Statuses(folders.runs), Known()

    def check() -> tuple[list[Status], str]:
        statuses, note = _with_jobs(seen.of_all(stages), folders)
        return tracked(statuses, folders.runs, name, known), note

    if watch:
        from suite.cli.live import watch_status

        watch_status(console, check)
    console.print(shown(*check()))
    show_pages(name, folders.runs)
    return 0


def logs(
    key: Annotated[
        str, Parameter(help="key of a stage, or its first characters; with --errors the name of a sweep")
    ],
    /,
    *,
    follow: Annotated[bool, Parameter(help="continue until the stage has ended")] = False,
    errors: Annotated[bool, Parameter(help="instead: the error of each failed run of a sweep")] = False,
    folders: RunsOptions = RUNS,
) -> int:
    """Show what the job of a stage wrote."""
    if errors:
        return _errors(Path(key).stem, folders)
    [stage] = find_stages(folders.runs, [key], checked=False)
    if not follow and not _files(stage, folders):
        raise SuiteError(f"no job of {stage.name} ({stage.key}) has written anything yet")
    shown: dict[Path, int] = {}
    seen = Statuses(folders.runs)
    while True:
        [now], _ = _with_jobs(seen.of_all([stage]), folders)
        for file in _files(stage, folders):
            _print_from(file, shown)
        if not follow or now.state not in ("running", "queued"):
            return 0
        time.sleep(FOLLOW_SECONDS)


def _files(stage: Stage, folders: Folders) -> list[Path]:
    """The logs of the last job of a stage, whoever launched it."""
    found = [by.logs(stage.key) for by in launcher.every(folders)]
    return max(filter(None, found), key=lambda files: max(f.stat().st_mtime for f in files), default=[])


def _print_from(file: Path, shown: dict[Path, int]) -> None:
    """Print what a log has beyond what was `shown` of it, in bytes."""
    with file.open("rb") as stream:
        stream.seek(shown.get(file, 0))
        text = stream.read()
        shown[file] = stream.tell()
    # A terminal would obey what is no text, and a carriage return alone hides what stands before it.
    lines = text.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    sys.stdout.write(printable(lines))
    sys.stdout.flush()


def _errors(sweep: str, folders: Folders) -> int:
    console, stages = get_console(), load_sweep(folders.runs, sweep)
    found, note = _with_jobs(Statuses(folders.runs).of_all(stages), folders)
    failed = [now for now in found if now.state == "failed"]
    for now in failed:
        console.print(f"[cyan]{now.stage.key}[/] {literal(now.stage.name)}", highlight=False)
        console.print(f"  {now.cause}: {now.error}", style="red", markup=False, soft_wrap=True)
    console.print(literal(note) or f"{len(failed)} of {counted(len(found), 'run')} failed")
    return 0


def sync(
    sweep: LaunchedName,
    /,
    *,
    report: Annotated[Path, Parameter(help="folder where `suite report` wrote SWEEP/")] = Path("results"),
    follow: Annotated[
        bool, Parameter(help="continue, a few seconds behind, until all stages have ended")
    ] = False,
    folders: FolderOptions = FOLDERS,
) -> int:
    """Bring MLflow up to date with a sweep's journals and its report; repeats safely."""
    from suite.track import store
    from suite.track import sync as tracking
    from suite.track.follow import follow as followed

    console, name = get_console(), Path(sweep).stem
    stages = load_sweep(folders.runs, name)
    printed, refused = set[str](), dict[str, str]()
    if follow:
        for words in followed(name, stages, folders.runs, report / name):
            console.print(literal(words), soft_wrap=True, highlight=False)
            printed.add(words)
    with announced(f"MLflow at {store.shown(folders.runs)} is not up to date yet"):
        experiment = tracking.sync(name, stages, folders.runs, report / name, refused)
    for words in refused.values():
        if words not in printed:
            console.print(literal(words), soft_wrap=True, highlight=False)
    if words := damage(Statuses(folders.runs).of_all(stages)):
        console.print(words, soft_wrap=True)
    for words in _with_models(name, folders):
        console.print(literal(words), soft_wrap=True, highlight=False)
    console.print(f"MLflow has all runs of {name}. Open it with")
    console.print(store.how_to_open(experiment, folders.runs), soft_wrap=True, highlight=False, markup=False)
    show_pages(name, folders.runs)
    return 0


def _with_models(sweep: str, folders: Folders) -> list[str]:
    """Make the best recipes loadable from MLflow's registry; what went wrong, in lines."""
    from suite.track.models import add_models

    with doing(get_console()) as say:
        return add_models(sweep, folders, say)


def show_pages(name: str, runs: Path) -> None:
    """The links to the sweep's pages in MLflow."""
    for what, link in mlflow_pages(runs, name).items():
        get_console().print(f"MLflow, {what}: {link}", soft_wrap=True, highlight=False, markup=False)
