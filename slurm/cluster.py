"""The cluster file: what a job asks for, checked against what the cluster offers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from slurm.client import ask, rows_of
from slurm.cluster_error import ClusterError
from slurm.cluster_file import TABLES, check_setup, check_types, line_of, read_toml
from slurm.options import FIELDS, in_place_of, without_options_of
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted

EARLY_SECONDS = 60
"""How much earlier than asked SLURM may send its warning of the time limit (sbatch's manual, --signal)."""


BUDGETS = {"time": 100, "preempted": 100, "node": 5, "memory": 1, "disk": 0, "code": 0, "diverged": 0}
"""How many further attempts a job gets for each cause that may end one, unless its cluster.toml says otherwise."""


@dataclass(frozen=True)
class Cluster:
    """A cluster.toml: what each job asks for. Times in minutes or seconds as named, memory in 10^9 bytes a rank.

    sbatch, srun: further options by their long names; true is an option without a value, false leaves out one that
    the suite would set. training, recipe: what a job that trains, or any other, asks for instead; the tables sbatch
    and srun in them add to those of the cluster.

    Raises ClusterError, which names the value, for one of another type or out of its range.
    """

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
    sbatch: dict[str, str | int] = field(default_factory=dict)
    srun: dict[str, str | int] = field(default_factory=dict)
    training: dict[str, object] = field(default_factory=dict)
    recipe: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(KINDS, {item.name: getattr(self, item.name) for item in fields(self)})
        for name in ("minutes", "ranks_per_node", "cpus_per_rank", "parallel", "warning_seconds"):
            _check_from(1, (name,), getattr(self, name))
        _check_from(0, ("gpus_per_node",), self.gpus_per_node)
        if not 0.01 <= self.memory_gb_per_rank <= MOST:
            raise ClusterError(
                ("memory_gb_per_rank",), f"must be from 0.01 to {MOST}, got {self.memory_gb_per_rank}"
            )
        for cause, count in self.retries.items():
            if cause not in BUDGETS:
                raise ClusterError(("retries", cause), f"is unknown; there is {', '.join(BUDGETS)}")
            _check_from(0, ("retries", cause), count)
        if 60 * self.minutes < self.warning_seconds + 2 * EARLY_SECONDS:
            at = "warning_seconds" if self.minutes == type(self).minutes else "minutes"
            raise ClusterError(
                (at,),
                f"leaves a job no time: of its minutes ({self.minutes}) it is asked to save warning_seconds "
                f"({self.warning_seconds}) before the end and up to {EARLY_SECONDS} s earlier; raise minutes",
            )
        if self.gpus_per_node and self.ranks_per_node > self.gpus_per_node:
            raise ClusterError(
                ("gpus_per_node",),
                f"{self.gpus_per_node} is less than ranks_per_node {self.ranks_per_node}; each rank has a GPU of its "
                f"own: lower ranks_per_node",
            )
        try:
            _ = self.asked
        except ClusterError as error:
            option = next((name for name in FIELDS.get(error.at[0], ()) if name in self.sbatch), error.at[0])
            raise ClusterError(("sbatch", option), error.message) from None
        for table in ("training", "recipe"):
            try:
                self.of(trains=table == "training")
            except ClusterError as error:
                raise ClusterError((table, *error.at), error.message) from None

    def of(self, trains: bool) -> Cluster:
        """What a job asks for that trains, or that does not."""
        own = dict(self.training if trains else self.recipe)
        if not own:
            return self
        tables = {name: dict(own.pop(name, {})) for name in TABLES}  # type: ignore[call-overload]
        sbatch = without_options_of(own, self.sbatch) | tables["sbatch"]
        own |= {"sbatch": sbatch, "srun": self.srun | tables["srun"], "training": {}, "recipe": {}}
        return replace(self, **own)  # type: ignore[arg-type]

    @property
    def asked(self) -> Cluster:
        """What a job gets: with what [sbatch] asks for in the place of the other values."""
        if not self.sbatch:
            return self
        values = in_place_of(self.sbatch, self.ranks_per_node)
        return replace(self, **values, sbatch={}, training={}, recipe={})  # type: ignore[arg-type]

    def nodes(self, world_size: int) -> int:
        """How many nodes that many ranks take. Raises SuiteError where they do not fill them."""
        if world_size <= self.ranks_per_node:
            return 1
        if world_size % self.ranks_per_node:
            raise SuiteError(
                f"world_size {world_size} does not fill nodes of {counted(self.ranks_per_node, 'rank')}; use a "
                f"multiple of {self.ranks_per_node}"
            )
        return world_size // self.ranks_per_node


KINDS = {item.name: str(item.type) for item in fields(Cluster)}
"""The type of each value, as it is written in `Cluster`."""


MOST = 10**6
"""Of every whole number: more minutes, or cores, than any cluster has."""


def _check_from(lowest: int, at: tuple[str, ...], value: int) -> None:
    if not lowest <= value <= MOST:
        raise ClusterError(at, f"must be a whole number from {lowest} to {MOST}, got {value}")


def read_cluster(file: Path) -> Cluster:
    """The cluster of a TOML file. Raises SuiteError with the line of a value that is unknown, of another type or too
    small."""
    text, content = read_toml(file)
    try:
        check_types(KINDS, content)
        content["setup"] = tuple(content.get("setup", ()))
        check_setup(content["setup"])
        return Cluster(**content)
    except ClusterError as error:
        line = line_of(text, error.at)
        where = f"{file}, line {line}" if line else str(file)
        raise SuiteError(f"{where}: {error}") from None


def largest_array() -> int:
    """How many tasks an array may have: MaxArraySize caps the index, which counts from 0. Where it is 0 there are no
    arrays, and each job is sent by itself."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return max(1, int(found[1])) if found else 1001


def check_cluster(cluster: Cluster, nodes: int) -> None:
    """Raise SuiteError for what the cluster would refuse: an unknown partition, too long a time, too many GPUs a node,
    more nodes than there are."""
    cluster = cluster.asked
    rows = rows_of(ask("sinfo", "--all", "--noheader", "--format=%R|%l|%D|%G"), 4)
    wanted = _partitions(cluster)
    for name in wanted:
        if name not in {row[0] for row in rows}:
            there = ", ".join(sorted({row[0] for row in rows}))
            raise SuiteError(f"there is no partition {name!r}; there is {there}")
    mine = [row for row in rows if row[0] in wanted]
    limits = [limit for row in mine if (limit := _minutes(row[1])) is not None]
    if len(limits) == len(mine) and cluster.minutes > max(limits):
        raise SuiteError(
            f"minutes {cluster.minutes} is over partition {','.join(wanted)}'s limit of {max(limits):.0f}"
        )
    if not mine:
        raise SuiteError("sinfo lists no partition; set partition in the cluster file")
    gpus = max(_gpus(row[3]) for row in mine)
    if cluster.gpus_per_node > gpus:
        raise SuiteError(
            f"gpus_per_node {cluster.gpus_per_node} is more than the {gpus} that a node of {','.join(wanted)} has"
        )
    count = sum(int(row[2]) for row in mine)
    if nodes > count:
        raise SuiteError(
            f"a stage takes {counted(nodes, 'node')}, and partition {','.join(wanted)} has {count}"
        )


def _partitions(cluster: Cluster) -> list[str]:
    """The partitions that jobs may go to: the cluster's default, where none is named."""
    if named := cluster.asked.partition:
        return named.split(",")
    listed = ask("sinfo", "--all", "--noheader", "--format=%P").split()
    default = [name.removesuffix("*") for name in listed if name.endswith("*")] or listed
    return default[:1]


def without(suspects: set[str], cluster: Cluster, nodes: int) -> list[str]:
    """Those suspects that jobs can do without: none, where fewer than `nodes` nodes of the partition would be left."""
    rows = rows_of(ask("sinfo", "--all", "--noheader", "--Node", "--format=%N %R"), 2, between=None)
    wanted = _partitions(cluster)  # sinfo takes --all or --partition
    names = {name for name, partition in rows if partition in wanted}
    return sorted(names & suspects) if len(names - suspects) >= nodes else []


def _minutes(text: str) -> float | None:
    """sinfo's time limit, `[days-]hours:minutes:seconds` or `minutes:seconds`, in minutes; None for infinite, or
    where it is none."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text.strip()):
        return None
    days, _, clock = text.strip().rpartition("-")
    hours, minutes, seconds = ([0, 0, 0] + [int(part) for part in clock.split(":")])[-3:]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def _gpus(text: str) -> int:
    """The GPUs of sinfo's generic resources: `gpu:4`, `gpu:h100:8(S:0-1)`."""
    return sum(int(count) for count in re.findall(r"gpu(?::[\w.-]+)?:(\d+)", text))
