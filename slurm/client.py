"""Asks SLURM (sbatch, squeue, sacct, sinfo, scontrol) and reads its answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace

from suite.recipe.errors import SuiteError
from suite.record.waiting import announced

REMEDIES = {
    "Unable to contact": "slurmctld does not answer; try again presently: nothing is sent twice",
    "Unknown host": "no slurmctld was found; use a login node of the cluster, or set SLURM_CONF",
    "SubmitJobLimit": "you may have no more jobs in the queue; launch again when some have ended: none is sent twice",
    "submit limit": "you may have no more jobs in the queue; launch again when some have ended: none is sent twice",
    "Disk quota": "free some space, or choose another folder with --runs",
    "Invalid account": "set account in the cluster file; sacctmgr show associations user=$USER lists yours",
    "Invalid qos": "set qos in the cluster file; sacctmgr show qos lists them",
    "partition": "set partition in the cluster file; sinfo lists them and whether they are up",
    "Memory specification": "lower memory_gb_per_rank in the cluster file",
    "node configuration": "lower gpus_per_node, cpus_per_rank or memory_gb_per_rank in the cluster file",
    "More processors": "lower cpus_per_rank or ranks_per_node in the cluster file",
    "time limit": "lower minutes in the cluster file",
    "feature": "set constraint in the cluster file; sinfo --format=%f lists the features",
    "Problem talking to the database": "slurmdbd does not answer; the queue and the journals still do",
}
"""What to do, by a part of the error that SLURM prints."""

PATIENCE_SECONDS = 60

LONGEST_WORD = 100_000
"""Bytes of one word of a command; Linux takes 131,071."""


OURS = ("SLURM_CONF", "SLURM_CLUSTERS")


FOREIGN = ("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_", "SACCT_", "SCONTROL_", "SRUN_")
"""Variables by which a shell changes what SLURM's commands are asked for and what they show."""


def ask(*words: str, holding: tuple[int, ...] = ()) -> str:
    """What a SLURM command answers. Raises SuiteError with its complaint, or where there is no SLURM. It keeps the
    files `holding` open, and so what they lock, should this process be killed meanwhile."""
    if shutil.which(words[0]) is None:
        raise SuiteError(
            f"there is no {words[0]} on this machine; --on slurm needs a login node of a SLURM cluster"
        )
    environment = {k: v for k, v in os.environ.items() if k in OURS or not k.startswith(FOREIGN)}
    # A site may print in another encoding than this process's.
    how = {"capture_output": True, "text": True, "errors": "replace", "pass_fds": holding}
    try:
        with announced(f"{words[0]} has not answered yet; it has {PATIENCE_SECONDS} s"):
            done = subprocess.run(words, env=environment, timeout=PATIENCE_SECONDS, **how)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        raise SuiteError(f"{words[0]} did not answer in {PATIENCE_SECONDS} s; is slurmctld up?") from None
    if done.returncode:
        complaint = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it printed no error"]
        error = complaint[0].removeprefix(f"{words[0]}: ").removeprefix("error: ")
        remedy = next((advice for sign, advice in REMEDIES.items() if sign in done.stderr), "")
        raise SuiteError(f"{words[0]}: {error}{remedy and f'; {remedy}'}")
    return str(done.stdout)


@dataclass(frozen=True)
class JobState:
    """A job or an array's task, as SLURM has it: `id` is `12` or `12_3`, `state` as squeue and sacct name it; `reason`
    is why it waits or, of one that has ended, its exit code."""

    id: str
    name: str
    state: str
    reason: str
    node: str


def queued(names: Iterable[str]) -> dict[str, JobState]:
    """By id, the jobs of these names that wait or run, each task of an array by itself."""
    columns = "--format=%i|%j|%T|%r|%N"
    answers = [
        ask("squeue", "--all", "--noheader", "--array", columns, f"--name={some}") for some in _lists(names)
    ]
    return {state.id: state for answer in answers for state in _parsed(answer)}


def ended(names: Iterable[str] = (), ids: Iterable[str] = ()) -> dict[str, JobState]:
    """By id, the jobs of these names or these ids that have ended, from the accounting; those that were queued again
    are left out; none where the cluster keeps no accounting. By name it does not find those that were cancelled while
    they waited for others.
    """
    asked: list[tuple[str, ...]] = [(f"--name={some}", "--starttime=now-60days") for some in _lists(names)]
    asked += [(f"--jobs={some}",) for some in _lists(ids)]
    columns = "--format=JobID%40,JobName%60,State%30,ExitCode,NodeList%200"
    try:
        answers = [ask("sacct", "-X", "--noheader", "--parsable2", columns, *which) for which in asked]
    except SuiteError:
        if keeps_accounting():
            raise
        return {}
    found: dict[str, JobState] = {}
    for state in (state for answer in answers for state in _parsed(answer)):
        if state.state not in ("PENDING", "RUNNING", "REQUEUED"):
            found |= {one: replace(state, id=one) for one in expanded(state.id)}
    return found


def keeps_accounting() -> bool:
    """Whether there is a database that `ended` can ask."""
    try:
        ask("sacct", "--noheader", "--jobs=1")
    except SuiteError as error:
        return "accounting" not in str(error).lower()
    return True


def expanded(identity: str) -> list[str]:
    """The tasks of an array that never started, which accounting has in one line: `5_[0-2,7]`, `6_[0-40:2]`,
    `12_[0-3,7%4]`. What it cut off, `5_[0-2,...]`, stays unknown."""
    found = re.fullmatch(r"(\d+)_\[([^%\]]*)(?:%\d+)?\]", identity)
    if not found:
        return [identity]
    tasks: list[int] = []
    for part in found[2].split(","):
        if span := re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part):
            tasks += range(int(span[1]), int(span[2] or span[1]) + 1, int(span[3] or 1))
    return [f"{found[1]}_{task}" for task in tasks]


def _lists(words: Iterable[str]) -> list[str]:
    """The words with commas between them, in order, in texts that a command takes."""
    lists: list[str] = []
    for word in sorted(words):
        if lists and len(lists[-1]) + len(word) < LONGEST_WORD:
            lists[-1] += f",{word}"
        else:
            lists.append(word)
    return lists


def number_in(answer: str) -> str | None:
    """The job's number in what `sbatch --parsable` prints, alone or before its cluster's name, in a line of its own: a
    site may greet before it. None where there is none."""
    found = re.findall(r"^(\d+)(?:;[\w.-]+)?\s*$", answer, re.MULTILINE | re.ASCII)
    return found[-1] if found else None


def rows_of(answer: str, columns: int, between: str | None = "|") -> list[list[str]]:
    """The lines of an answer that have so many columns: a site may greet before them."""
    rows = [[part.strip() for part in line.split(between)] for line in answer.splitlines()]
    return [row for row in rows if len(row) == columns]


def _parsed(answer: str) -> list[JobState]:
    return [
        JobState(identity, name, state.split(" ")[0], reason, node.removeprefix("None assigned"))
        for identity, name, state, reason, node in rows_of(answer, 5)
    ]
