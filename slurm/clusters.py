"""What a cluster is asked for, what it would refuse, and what it says of its jobs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from suite.values import SuiteError, check_whole

PATIENCE_SECONDS = 60

EARLY_SECONDS = 60
"""How much earlier than asked SLURM may send its warning of the time limit (sbatch's manual, --signal)."""

BUDGETS = {"time": 100, "preempted": 100, "node": 5, "memory": 1, "disk": 0, "code": 0, "diverged": 0}
"""How many further turns a job gets for each cause that may end one, unless its cluster.toml says otherwise."""


REMEDIES = {
    "Unable to contact": "slurmctld does not answer; try again presently: nothing is sent twice",
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
"""What to do, by what SLURM complains of."""


@dataclass(frozen=True)
class Cluster:
    """A cluster.toml: what each job asks for. Times in minutes or seconds as named, memory in 10^9 bytes a rank."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = 240
    gpus_per_node: int = 0
    ranks_per_node: int = 4
    cpus_per_rank: int = 2
    memory_gb_per_rank: float = 8.0
    parallel: int = 32
    warning_seconds: int = 120
    setup: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_whole(self, 1, minutes=self.minutes, ranks_per_node=self.ranks_per_node, parallel=self.parallel)
        check_whole(self, 1, cpus_per_rank=self.cpus_per_rank, warning_seconds=self.warning_seconds)
        check_whole(self, 0, gpus_per_node=self.gpus_per_node)
        if 60 * self.minutes < self.warning_seconds + 2 * EARLY_SECONDS:
            raise SuiteError(
                f"minutes {self.minutes} leaves a job no time before it is told to save, warning_seconds "
                f"{self.warning_seconds} before the end and up to {EARLY_SECONDS} s earlier; raise minutes"
            )
        if strange := sorted(self.retries.keys() - BUDGETS.keys()):
            raise SuiteError(f"retries: {strange[0]!r} is unknown; there is {', '.join(BUDGETS)}")
        check_whole(self, 0, **self.retries)
        if self.gpus_per_node and self.ranks_per_node > self.gpus_per_node:
            raise SuiteError(
                f"ranks_per_node {self.ranks_per_node} is more than gpus_per_node {self.gpus_per_node}; each rank has "
                f"a GPU of its own"
            )

    def nodes(self, world_size: int) -> int:
        """How many nodes that many ranks take. Raises SuiteError where they do not fill them."""
        if world_size <= self.ranks_per_node:
            return 1
        if world_size % self.ranks_per_node:
            raise SuiteError(
                f"world_size {world_size} does not fill nodes of {self.ranks_per_node} ranks; use a multiple of "
                f"{self.ranks_per_node}"
            )
        return world_size // self.ranks_per_node


def read(file: Path) -> Cluster:
    """The cluster of a TOML file. Raises SuiteError for what it does not know, naming what there is."""
    try:
        content = tomllib.loads(file.read_text())
    except OSError as error:
        raise SuiteError(f"cannot read {file}: {error}; slurm/cluster.toml is one to copy") from None
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{file} is not TOML: {error}") from None
    known = {item.name for item in fields(Cluster)}
    if strange := sorted(content.keys() - known):
        raise SuiteError(f"{file}: {strange[0]!r} is unknown; there is {', '.join(sorted(known))}")
    content["setup"] = tuple(content.get("setup", ()))
    return Cluster(**content)


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
    how = {"capture_output": True, "text": True, "timeout": PATIENCE_SECONDS, "pass_fds": holding}
    try:
        done = subprocess.run(words, env=environment, **how)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        raise SuiteError(f"{words[0]} did not answer in {PATIENCE_SECONDS} s; is slurmctld up?") from None
    if done.returncode:
        complaint = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it says nothing"]
        told = complaint[0].removeprefix(f"{words[0]}: ").removeprefix("error: ")
        remedy = next((advice for sign, advice in REMEDIES.items() if sign in done.stderr), "")
        raise SuiteError(f"{words[0]}: {told}{remedy and f'; {remedy}'}")
    return str(done.stdout)


@dataclass(frozen=True)
class JobState:
    """A job or an array's task, as SLURM has it: `id` is `12` or `12_3`, `state` as squeue and sacct name it; `reason`
    is why it waits or, of one that has ended, its exit code. `turns` are the causes that ended its turns; `cause` and
    `note` say why one failed that could not tell."""

    id: str
    name: str
    state: str
    reason: str
    node: str
    turns: str = ""
    cause: str = ""
    note: str = ""


def queued(names: Iterable[str]) -> dict[str, JobState]:
    """By id, the jobs of these names that wait or run, each task of an array by itself."""
    listed = sorted(names)
    answer = (
        ask("squeue", "--all", "--noheader", "--array", "--format=%i|%j|%T|%r|%N", *_named(listed))
        if listed
        else ""
    )
    return {state.id: state for state in map(_parsed, answer.splitlines())}


def ended(names: Iterable[str] = (), ids: Iterable[str] = ()) -> dict[str, JobState]:
    """By id, the jobs of these names or these ids that have ended, from the accounting; those that were queued again
    are left out; none where the cluster keeps no accounting. By name it does not find those that were cancelled while
    they waited for others.
    """
    listed, numbers = sorted(names), sorted(ids)
    if not listed and not numbers:
        return {}
    which = [*_named(listed), "--starttime=now-60days"] if listed else [f"--jobs={','.join(numbers)}"]
    columns = "--format=JobID%40,JobName%60,State%30,ExitCode,NodeList%200"
    try:
        answer = ask("sacct", "-X", "--noheader", "--parsable2", columns, *which)
    except SuiteError:
        if keeps_accounting():
            raise
        return {}
    found: dict[str, JobState] = {}
    for state in map(_parsed, answer.splitlines()):
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


def _named(names: Sequence[str]) -> list[str]:
    return [f"--name={','.join(names)}"]


def _parsed(line: str) -> JobState:
    identity, name, state, reason, node = (part.strip() for part in line.split("|"))
    return JobState(identity, name, state.split(" ")[0], reason, node.removeprefix("None assigned"))


def largest_array() -> int:
    """How many tasks an array may have: MaxArraySize caps the index, which counts from 0."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return int(found[1]) if found else 1001


def check(cluster: Cluster, nodes: int) -> None:
    """Raise SuiteError for what the cluster would refuse: an unknown partition, too long a time, too many GPUs a node,
    more nodes than there are."""
    rows = [
        line.split("|") for line in ask("sinfo", "--all", "--noheader", "--format=%R|%l|%D|%G").splitlines()
    ]
    wanted = _partition(cluster)
    mine = [row for row in rows if row[0] == wanted]
    if not mine:
        raise SuiteError(
            f"there is no partition {wanted!r}; there is {', '.join(sorted({row[0] for row in rows}))}"
        )
    limit = _minutes(mine[0][1])
    if limit is not None and cluster.minutes > limit:
        raise SuiteError(f"minutes {cluster.minutes} is over partition {wanted}'s limit of {limit:.0f}")
    gpus = max(_gpus(row[3]) for row in mine)
    if cluster.gpus_per_node > gpus:
        raise SuiteError(
            f"gpus_per_node {cluster.gpus_per_node} is more than the {gpus} that a node of {wanted} has"
        )
    count = sum(int(row[2]) for row in mine)
    if nodes > count:
        raise SuiteError(f"a stage takes {nodes} nodes, and partition {wanted} has {count}")


def _partition(cluster: Cluster) -> str:
    """The partition that jobs go to: the cluster's default, where none is named."""
    listed = ask("sinfo", "--all", "--noheader", "--format=%P").split()
    default = [name.removesuffix("*") for name in listed if name.endswith("*")] or listed
    return cluster.partition or (default[0] if default else "")


def without(suspects: set[str], cluster: Cluster, nodes: int) -> list[str]:
    """Those suspects that jobs can do without: none, where fewer than `nodes` nodes of the partition would be left."""
    listed = ask("sinfo", "--all", "--noheader", "--Node", "--format=%N %R").splitlines()
    rows, wanted = [line.split() for line in listed], _partition(cluster)  # sinfo takes --all or --partition
    names = {name for name, partition in rows if partition == wanted}
    return sorted(names & suspects) if len(names - suspects) >= nodes else []


def _minutes(text: str) -> float | None:
    """sinfo's time limit, `[days-]hours:minutes:seconds` or `minutes:seconds`, in minutes; None for infinite."""
    if text.strip() in ("infinite", "n/a"):
        return None
    days, _, clock = text.strip().rpartition("-")
    hours, minutes, seconds = ([0, 0, 0] + [int(part) for part in clock.split(":")])[-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def _gpus(text: str) -> int:
    """The GPUs of sinfo's generic resources: `gpu:4`, `gpu:h100:8(S:0-1)`."""
    return sum(int(count) for count in re.findall(r"gpu(?::[\w.-]+)?:(\d+)", text))
