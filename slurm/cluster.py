"""The cluster file: what a job asks for, checked against what the cluster offers."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from slurm.client import ask
from suite.recipe.errors import SuiteError, check_whole

EARLY_SECONDS = 60
"""How much earlier than asked SLURM may send its warning of the time limit (sbatch's manual, --signal)."""


BUDGETS = {"time": 100, "preempted": 100, "node": 5, "memory": 1, "disk": 0, "code": 0, "diverged": 0}
"""How many further turns a job gets for each cause that may end one, unless its cluster.toml says otherwise."""


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


def read_cluster(file: Path) -> Cluster:
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


def largest_array() -> int:
    """How many tasks an array may have: MaxArraySize caps the index, which counts from 0."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return int(found[1]) if found else 1001


def check_cluster(cluster: Cluster, nodes: int) -> None:
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
