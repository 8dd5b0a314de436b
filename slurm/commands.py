"""The commands of the command line that talk to a cluster."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from slurm.client import JobState
from slurm.cluster import Cluster, check_cluster, largest_array, read_cluster
from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.recipe.planning import matching, only
from suite.record.status import State, Status, status_of
from suite.sweeps.stored import find_stages, load_sweep

if TYPE_CHECKING:
    from slurm.launcher import Slurm

QUEUE_STATES: dict[str, State] = {"RUNNING": "running", "COMPLETING": "running", "PENDING": "queued"}


def show_jobs(pending: list[Stage], arguments: argparse.Namespace, console: Console) -> None:
    """The arrays, what they wait for, and the exact scripts; raises SuiteError for what the cluster would refuse."""
    cluster = _cluster(arguments)
    check_cluster(cluster, max((cluster.nodes(stage.world_size) for stage in pending), default=1))
    planned = _launcher(arguments, cluster).planned(pending, largest_array())
    for array, text in planned:
        waits = ", ".join(f"{name}_{number}" for name, number in array.after) or "nothing"
        console.print(
            f"\n[bold]{array.name}[/]: {len(array.tasks)} jobs of {array.world_size} ranks, after {waits}"
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    ranks = sum(len(array.tasks) * array.world_size for array, _ in planned)
    unit, each = ("GPU-hours", 1) if cluster.gpus_per_node else ("core-hours", cluster.cpus_per_rank)
    hours = ranks * each * cluster.minutes / 60
    console.print(f"{len(planned)} arrays; at most {hours:,.0f} {unit} by their time limits")


def submit(name: str, chosen: tuple[Stage, ...], arguments: argparse.Namespace, console: Console) -> int:
    """Send to the cluster what is neither done nor there already."""
    from suite.cli.live import looking_at_files
    from suite.launch.preflight import check
    from suite.launch.unchanged import check_unchanged

    cluster = _cluster(arguments)
    launcher = _launcher(arguments, cluster)
    statuses = [status_of(stage, arguments.runs) for stage in chosen]
    check_unchanged(statuses, arguments.data)
    pending = [now.stage for now in statuses if now.state != "done"]
    if pending:
        check_cluster(cluster, max(cluster.nodes(stage.world_size) for stage in pending))
        with looking_at_files(console) as report:
            on_gpu = cluster.gpus_per_node > 0
            check(pending, launcher.folders, 10**6, arguments.download, report, on_gpu)
    sent = launcher.submit(pending)
    count = sum(len(task) for array in sent for task in array.tasks)
    console.print(f"{name}: {count} of {len(chosen)} stages sent in {len(sent)} arrays")
    for array in sent:
        console.print(f"  {array.job_id}  {array.name}  {len(array.tasks)} jobs of {array.world_size} ranks")
    if launcher.ending:
        console.print(
            f"{launcher.ending} jobs are still ending; what they leave, resume {name} sends in a minute"
        )
    console.print(f"how far it is: suite status {name}")
    return 0


def resume(arguments: argparse.Namespace, console: Console) -> int:
    """Submit what a launched sweep still lacks."""
    name = Path(arguments.sweep).stem
    return submit(name, matching(load_sweep(arguments.runs, name), arguments.only), arguments, console)


def cancel(arguments: argparse.Namespace, console: Console) -> int:
    """Cancel the jobs of a sweep, or of some of its stages."""
    name = Path(arguments.sweep).stem
    every = load_sweep(arguments.runs, name)
    chosen = every if arguments.only is None else only(every, arguments.only)
    ended, left_out = _launcher(arguments, Cluster()).cancel([stage.key for stage in chosen])
    others = f", and {left_out} stages of jobs that go on with others" if left_out else ""
    console.print(f"{ended} jobs of {name} cancelled{others}; resume {name} sends them again")
    return 0


def logs(arguments: argparse.Namespace, console: Console) -> int:
    """Show what the last job of a stage wrote; or the first line of the error of each failed run of a sweep."""
    if arguments.errors:
        name = Path(arguments.key).stem
        statuses = [status_of(stage, arguments.runs) for stage in load_sweep(arguments.runs, name)]
        found, note = with_jobs(statuses, arguments)
        failed = [now for now in found if now.state == "failed"]
        for now in failed:
            console.print(f"[cyan]{now.stage.key}[/] {now.stage.name}", highlight=False)
            console.print(f"  {now.cause}: {now.error}", style="red", markup=False, soft_wrap=True)
        console.print(note or f"{len(failed)} of {len(found)} runs failed")
        return 0
    [stage] = find_stages(arguments.runs, [arguments.key])
    print(_launcher(arguments, Cluster()).log(stage.key), end="")
    return 0


def with_jobs(statuses: list[Status], arguments: argparse.Namespace) -> tuple[list[Status], str]:
    """Each status with what SLURM has of it, and a note where SLURM cannot be asked. On another node a lock may not
    be seen: what SLURM runs is running."""
    if shutil.which("squeue") is None:
        return statuses, "there is no SLURM on this machine: how its jobs are is not known here"
    try:
        launcher = _launcher(arguments, Cluster())
        states = launcher.states()
    except SuiteError as error:
        return statuses, f"how the jobs are is not known: {error}"
    return [_with_job(now, states.get(now.stage.key)) for now in statuses], launcher.note


def _with_job(now: Status, job: JobState | None) -> Status:
    if job is None:
        return now
    state, failure = now.state, now.failure
    if state in ("pending", "stopped") or (state == "failed" and job.state == "PENDING"):
        state = QUEUE_STATES.get(job.state, state)
    if job.note and state in ("pending", "stopped"):
        state, failure = "failed", {"error": job.note, "cause": job.cause}
    words = [job.id, job.state, job.node]
    if job.state == "PENDING" and job.reason not in ("None", "Resources", "Priority"):
        words.append(f"({job.reason})")
    if job.turns and (job.state in QUEUE_STATES or ", " in job.turns):
        words.append(f"after {job.turns}")
    return replace(now, state=state, failure=failure, job=" ".join(filter(None, words)))


def _cluster(arguments: argparse.Namespace) -> Cluster:
    return read_cluster(arguments.cluster) if arguments.cluster else Cluster()


def _launcher(arguments: argparse.Namespace, cluster: Cluster) -> Slurm:
    from slurm.launcher import Slurm
    from suite.record.files import Folders

    return Slurm(Folders(arguments.runs, arguments.data), cluster)
