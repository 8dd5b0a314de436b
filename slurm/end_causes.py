"""Why SLURM ended a job, as its accounting, its queue and the job's logs have it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm import client
from slurm.client import JobState
from suite.recipe.errors import SuiteError
from suite.record.cause import ACCOUNTING, NO_LOG_WRITTEN, Cause, cause_of

TOO_LITTLE_MEMORY = "killed over its memory; raise memory_gb_per_rank in the cluster file"


def of_job(
    job: JobState, last: Mapping[str, Any], logs: Sequence[Path], folder: Path
) -> tuple[Cause | None, str]:
    """(cause, words) of a job that has ended; words only where it failed. `last` is the last event of a stage in it,
    empty where the job came to none; `folder` is where its log should be."""
    if job.state in ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING"):
        return None, ""
    status = exit_status(job.reason)
    text = written(logs) if job.state == "FAILED" else ""
    journal = [last] if last else []
    cause = cause_of(journal=journal, accounting=job.state, exit_status=status, logs=text)
    words = {
        "time": "reached its time limit before it had saved; raise minutes or warning_seconds",
        "memory": TOO_LITTLE_MEMORY,
        "node": f"lost with its node {job.node}",
        "code": f"its job ended with exit code {job.reason}; logs KEY shows what it wrote",
    }
    if cause == "node" and status == NO_LOG_WRITTEN:
        return (
            cause,
            f"{job.node} cannot write into {folder}; choose a folder that all nodes share with --runs",
        )
    return cause, words.get(cause or "", "")


def exit_status(words: str) -> int | None:
    """sacct's exit code `status:signal` as one number, negative for a signal; None for anything else."""
    found = re.fullmatch(r"(\d+):(\d+)", words)
    return (-int(found[2]) or int(found[1])) if found else None


def written(logs: Sequence[Path], begin: Mapping[str, int] | None = None) -> str:
    """What a job wrote into its logs, from the bytes on where the attempt began."""
    texts = []
    for file in logs:
        with file.open("rb") as stream:
            stream.seek((begin or {}).get(file.name, 0))
            texts.append(stream.read().decode(errors="replace"))
    return "".join(texts)


def of_unrecorded(job: str, nodes: str) -> Cause:
    """Why an attempt ended of which nobody noted it, and after which SLURM started the job again: as accounting has it
    or, where it has nothing, by whether its nodes are still up."""
    words = ("sacct", "-X", "-D", "--noheader", "--parsable2", "--format=State", "--jobs", job)
    try:
        states = [line.split(" ")[0] for line in client.ask(*words).splitlines()]
    except SuiteError:
        states = []
    ended = [state for state in states if state not in ("RUNNING", "PENDING")]
    if not ended:
        ended = ["NODE_FAIL" if any(_is_down(state) for state in _states(nodes).values()) else "REQUEUED"]
    return (cause_of(accounting=ended[-1]) if ended[-1] in ACCOUNTING else None) or "node"


def _shown(job: str) -> dict[str, str]:
    try:
        shown = client.ask("scontrol", "show", "job", "--oneliner", job)
    except SuiteError:
        return {}
    return dict(word.partition("=")[::2] for word in shown.split())


def preempted(job: str, began: float) -> bool:
    """Whether SLURM has ended the attempt that began then for another job; otherwise its time is up, or somebody asked
    for it."""
    try:
        when = time.mktime(time.strptime(_shown(job).get("PreemptTime", ""), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return False
    return when >= began - 5  # an earlier one is that of an earlier attempt


def excluded(job: str) -> str:
    """The nodes that a job does not want, as SLURM writes them."""
    return _shown(job).get("ExcNodeList", "").removeprefix("(null)")


def _states(nodes: str) -> dict[str, str]:
    try:
        listed = client.ask("sinfo", "--all", "--noheader", "--Node", f"--nodes={nodes}", "--format=%N %T")
    except SuiteError:
        return {}
    return {node: state for node, state in client.rows_of(listed, 2, between=None)}


def _is_down(state: str) -> bool:
    return state.startswith(("down", "drain", "fail"))


def at_fault(nodes: str) -> str:
    """Which of a lost attempt's nodes to suspect: its only one or, of several, those that are not up."""
    states = _states(nodes)
    return (
        nodes if len(states) == 1 else ",".join(sorted(n for n, state in states.items() if _is_down(state)))
    )
