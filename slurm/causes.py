"""Why SLURM ended a job, as its accounting, its queue and the job's logs have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm import clusters
from slurm.clusters import JobState
from suite.values import SuiteError

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


def accounted(job: str) -> str:
    """Why a turn ended of which nobody noted it, as accounting has it: mostly its node was lost."""
    try:
        answer = clusters.ask(
            "sacct", "-X", "-D", "--noheader", "--parsable2", "--format=State", "--jobs", job
        )
    except SuiteError:
        return "node"
    states = [line.split(" ")[0] for line in answer.splitlines()]
    ended = [state for state in states if state not in ("RUNNING", "PENDING")]
    return FROM_ACCOUNTING.get(ended[-1], "node") if ended else "node"


def preempted(job: str) -> bool:
    """Whether SLURM ends the job for another; otherwise its time is up, or somebody asked for it."""
    try:
        shown = clusters.ask("scontrol", "show", "job", "--oneliner", job)
    except SuiteError:
        return False
    told = dict(word.partition("=")[::2] for word in shown.split())
    return told.get("PreemptTime", "None") not in ("None", "Unknown")


def at_fault(nodes: str) -> str:
    """Which of a lost turn's nodes to suspect: its only one or, of several, those that are not up."""
    try:
        listed = clusters.ask(
            "sinfo", "--noheader", "--Node", f"--nodes={nodes}", "--format=%N %T"
        ).splitlines()
    except SuiteError:
        return ""
    states = dict(line.split()[:2] for line in listed)
    if len(states) == 1:
        return nodes
    down = [name for name, state in states.items() if state.startswith(("down", "drain", "fail"))]
    return ",".join(sorted(down))
