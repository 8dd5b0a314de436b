"""Why SLURM ended a job, as its accounting, its queue and the job's logs have it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm import client
from slurm.client import JobState
from suite.recipe.errors import SuiteError

FROM_ACCOUNTING = {
    "TIMEOUT": "time",
    "PREEMPTED": "preempted",
    "REQUEUED": "preempted",
    "OUT_OF_MEMORY": "memory",
}

KILLED_FOR_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory", "OUT_OF_MEMORY")
"""What SLURM writes into the log of a step that it, or the kernel, has killed."""


TOO_LITTLE_MEMORY = "killed over its memory; raise memory_gb_per_rank in the cluster file"

UNWRITTEN = "0:53"
"""sacct's exit code of a job whose log could not be opened."""


def of_job(job: JobState, logs: Sequence[Path], folder: Path) -> tuple[str, str]:
    """(cause, words) of a job that has failed, for where its journal tells nothing; empty for any other. `folder` is
    where its log should be."""
    if job.state == "TIMEOUT":
        return "time", "reached its time limit before it had saved; raise minutes or warning_seconds"
    if job.state == "OUT_OF_MEMORY" or (job.state == "FAILED" and killed_for_memory(logs)):
        return "memory", TOO_LITTLE_MEMORY
    if job.state == "NODE_FAIL":
        return "node", f"lost with its node {job.node}"
    if job.reason == UNWRITTEN and not logs:
        return (
            "node",
            f"{job.node} cannot write into {folder}; choose a folder that all nodes share with --runs",
        )
    if job.state == "FAILED":
        return "code", f"its job ended with exit code {job.reason}; logs KEY shows what it wrote"
    return "", ""


def killed_for_memory(logs: Sequence[Path], begin: Mapping[str, int] | None = None) -> bool:
    """Whether SLURM says so in one of a job's logs, after the byte where the turn began."""
    for file in logs:
        with file.open(errors="replace") as stream:
            stream.seek((begin or {}).get(file.name, 0))
            text = stream.read()
        if any(words in text for words in KILLED_FOR_MEMORY):
            return True
    return False


def accounted(job: str, nodes: str) -> str:
    """Why a turn ended of which nobody noted it: as accounting has it or, where that says nothing, by whether its
    nodes are still up."""
    words = ("sacct", "-X", "-D", "--noheader", "--parsable2", "--format=State", "--jobs", job)
    try:
        states = [line.split(" ")[0] for line in client.ask(*words).splitlines()]
    except SuiteError:
        states = []
    ended = [state for state in states if state not in ("RUNNING", "PENDING")]
    if ended:
        return FROM_ACCOUNTING.get(ended[-1], "node")
    return "node" if any(_is_down(state) for state in _states(nodes).values()) else "preempted"


def _shown(job: str) -> dict[str, str]:
    try:
        shown = client.ask("scontrol", "show", "job", "--oneliner", job)
    except SuiteError:
        return {}
    return dict(word.partition("=")[::2] for word in shown.split())


def preempted(job: str, began: float) -> bool:
    """Whether SLURM has ended the turn that began then for another job; otherwise its time is up, or somebody asked
    for it."""
    try:
        when = time.mktime(time.strptime(_shown(job).get("PreemptTime", ""), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return False
    return when >= began - 5  # an earlier one is that of an earlier turn


def excluded(job: str) -> str:
    """The nodes that a job does not want, as SLURM writes them."""
    return _shown(job).get("ExcNodeList", "").removeprefix("(null)")


def _states(nodes: str) -> dict[str, str]:
    try:
        listed = client.ask("sinfo", "--all", "--noheader", "--Node", f"--nodes={nodes}", "--format=%N %T")
    except SuiteError:
        return {}
    return dict(line.split()[:2] for line in listed.splitlines())


def _is_down(state: str) -> bool:
    return state.startswith(("down", "drain", "fail"))


def at_fault(nodes: str) -> str:
    """Which of a lost turn's nodes to suspect: its only one or, of several, those that are not up."""
    states = _states(nodes)
    return (
        nodes if len(states) == 1 else ",".join(sorted(n for n, state in states.items() if _is_down(state)))
    )
