"""The options in [sbatch] and [srun] of a cluster.toml: which ones are the suite's own, what the others may be, and
which of the cluster's values they take the place of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from slurm.cluster_error import ClusterError, Location

OWN_OPTIONS = (
    "array", "chdir", "clusters", "dependency", "error", "export", "help", "job-name", "jobid", "kill-on-bad-exit",
    "kill-on-invalid-dep", "multi-prog", "no-kill", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode",
    "output", "parsable", "requeue", "signal", "test-only", "unbuffered", "usage", "version", "wait", "workdir",
    "wrap",
)  # fmt: skip
"""The options of sbatch and srun that decide whether a job goes on and how it is found; no table may set them."""

OWN_OF_SRUN = (*OWN_OPTIONS, "time")
"""Those of srun: ranks have the time of their job, after which it is queued again."""

WORD = r"\S+", "one word"
MEMORY = r"[0-9]+[KMGTkmgt]?[Bb]?", 'a size such as 4000, "4000M" or "16G"'
GPUS = (
    r"([a-z][\w.-]*:)?[0-9]+(,([a-z][\w.-]*:)?[0-9]+)*",
    'a number, or a type and a number such as "a100:4"',
)
COUNT = r"[1-9][0-9]{0,5}", "a whole number from 1"
TIME = (
    r"[0-9]{1,6}(:[0-9]{1,2}){0,2}|[0-9]{1,4}-[0-9]{1,2}(:[0-9]{1,2}){0,2}",
    'minutes, "hours:minutes:seconds" or "days-hours"',
)
GRES = (
    r"[A-Za-z][\w.-]*([:=/][\w.-]+)*(,[A-Za-z][\w.-]*([:=/][\w.-]+)*)*",
    'names and numbers such as "gpu:a100:4"',
)

VALUES = {
    "account": WORD, "constraint": WORD, "cpus-per-gpu": COUNT, "cpus-per-task": COUNT, "exclude": WORD, "gpus": GPUS,
    "gpus-per-node": GPUS, "gpus-per-socket": GPUS, "gpus-per-task": GPUS, "gres": GRES, "mem": MEMORY,
    "mem-per-cpu": MEMORY, "mem-per-gpu": MEMORY, "nodelist": WORD, "partition": WORD, "qos": WORD,
    "reservation": WORD, "time": TIME, "time-min": TIME,
}  # fmt: skip
"""What the value of an option must match, and that in words."""

WITH_VALUE = (
    *VALUES, "begin", "comment", "container", "container-image", "cpu-bind", "deadline", "distribution", "gpu-bind",
    "hint", "licenses", "mail-type", "mail-user", "mem-bind", "mpi", "network", "tmp", "wckey",
)  # fmt: skip
"""The options that cannot be `true`."""

WHOLE_NAMES = (*WITH_VALUE, "exclusive", "nice")
"""The options that must be written in full, since the suite looks for them by name."""

FIELDS = {
    "account": ("account",),
    "constraint": ("constraint",),
    "cpus_per_rank": ("cpus-per-task",),
    "gpus_per_node": ("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"),
    "memory_gb_per_rank": ("mem", "mem-per-cpu", "mem-per-gpu"),
    "minutes": ("time",),
    "partition": ("partition",),
    "qos": ("qos",),
}
"""The values of a cluster, and the options of [sbatch] that take the place of each."""

Options = Mapping[str, str | int]


def check_options(at: Location, options: Mapping[str, object]) -> None:
    """Raise ClusterError for an option that is none, is the suite's own, or has a value that SLURM would refuse."""
    own = OWN_OF_SRUN if at[-1] == "srun" else OWN_OPTIONS
    for name, value in options.items():
        here = (*at, name)
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ClusterError(here, "is no long option; write its name without the leading --")
        if name in own:
            raise ClusterError(here, "is set by the suite; leave the line out")
        for whole in (*own, *WHOLE_NAMES):  # SLURM's commands take any beginning of a name for it
            if whole.startswith(name) and name not in WHOLE_NAMES:
                is_own = whole in own
                remedy = ", which is set by the suite; leave the line out" if is_own else "; write that"
                raise ClusterError(here, f"is short for {whole}{remedy}")
        _check_value(here, value)


def _check_value(at: Location, value: object) -> None:
    name, text = at[-1], str(value)
    if not isinstance(value, (str, int)) or not text.isprintable():
        raise ClusterError(at, f"must be text, a whole number, true or false, got {value!r}")
    if value is False:
        return
    if not text.strip():
        raise ClusterError(at, f"must not be empty, got {value!r}; write it, or leave the line out")
    if value is True:
        if name in WITH_VALUE:
            raise ClusterError(at, f'needs a value, got true; write {name} = "..."')
        return
    pattern, words = VALUES.get(name, (".*", ""))
    if not re.fullmatch(pattern, text):
        raise ClusterError(at, f"must be {words}, got {value!r}")
    if isinstance(value, int) and value < 0 and name != "nice":
        raise ClusterError(at, f"must not be below 0, got {value}")


def in_place_of(sbatch: Options, ranks_per_node: int) -> dict[str, str | int | None]:
    """The values of a cluster that a job gets by `sbatch` instead of its own."""
    found: dict[str, str | int | None] = {}
    for name in ("account", "constraint", "partition", "qos"):
        if name in sbatch:
            found[name] = None if sbatch[name] is False else str(sbatch[name])
    given = {name: str(value) for name, value in sbatch.items() if value is not False}  # 0 is a value
    if "time" in given:
        found["minutes"] = _minutes(given["time"])
    if "cpus-per-task" in given:
        found["cpus_per_rank"] = int(given["cpus-per-task"])
    counts = [
        _count(given[name]) * (ranks_per_node if name == "gpus-per-task" else 1)
        for name in ("gpus-per-node", "gpus-per-task")
        if name in given
    ]
    if of_gpus := [one for one in given.get("gres", "").split(",") if is_gpu(one)]:
        counts.append(sum(_count(one) for one in of_gpus))
    counts += [
        ranks_per_node if _count(given[name]) else 0 for name in ("gpus", "gpus-per-socket") if name in given
    ]
    if counts or sbatch.get("gpus-per-node") is False:
        found["gpus_per_node"] = max(counts, default=0)
    return found


def is_gpu(one: str) -> bool:
    """Whether one of the generic resources of `gres` is a GPU."""
    return re.split("[:=/]", one)[0].lower() == "gpu"


OWN_NAMES = {"gpus_per_node": "gpus-per-node", "memory_gb_per_rank": "mem"}
"""The suite's own option for a value of a cluster, where an option of another name can take its place."""


def needless(sbatch: Options) -> list[str]:
    """The suite's own options whose place others in [sbatch] take; a `gres` without a GPU takes that of none."""
    given = {
        name
        for name, value in sbatch.items()
        if value is not False and (name != "gres" or any(map(is_gpu, str(value).split(","))))
    }
    return [own for name, own in OWN_NAMES.items() if given & set(FIELDS[name])]


def without_options_of(fields: Mapping[str, object], sbatch: Options) -> dict[str, str | int]:
    """The options of [sbatch] but for those that take the place of `fields`, which a more special table sets."""
    replaced = {option for name in fields for option in FIELDS.get(name, ())}
    kept = {name: value for name, value in sbatch.items() if name not in replaced}
    others = [one for one in str(sbatch.get("gres") or "").split(",") if one and not is_gpu(one)]
    return kept | ({"gres": ",".join(others)} if "gres" in replaced and others else {})


def _count(text: str) -> int:
    """How many GPUs `4`, `a100:4`, `gpu:4`, `a100:2,v100:2` or `gpu` ask for."""
    counts = [re.search(r"(?:^|[:=])([0-9]+)$", one) for one in text.split(",")]
    return sum(int(count[1]) if count else 1 for count in counts)


def _minutes(text: str) -> int:
    """sbatch's time: minutes, minutes:seconds, hours:minutes:seconds, and days-hours[:minutes[:seconds]]."""
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, minutes, seconds = (0, *parts, 0)[:3] if len(parts) < 3 else parts
    return int(days or 0) * 1440 + hours * 60 + minutes + math.ceil(seconds / 60)
