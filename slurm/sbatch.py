"""The sbatch script of an array of jobs: what each asks for, what it runs, and what becomes of one that fails."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slurm.arrays import ENDED
from slurm.cluster import Cluster
from slurm.options import needless
from suite.record.files import Folders


def text(
    folder: Path,
    world_size: int,
    tasks: int,
    after: Sequence[str],
    cluster: Cluster,
    folders: Folders,
    code: Path,
    avoid: Sequence[str],
) -> str:
    """The script of `tasks` jobs of `world_size` ranks each, which start when those of the ids `after` have succeeded.

    `folder` holds the array's record and logs, and its name is the job's; `code` is what the jobs run; `avoid` are the
    nodes they shall not come to.
    """
    log = f"{folder}/".replace("%", "%%") + ("%A_%a" if tasks > 1 else "%j")
    excluded = [str(cluster.sbatch.get("exclude") or ""), *avoid]
    options: dict[str, str | int | None] = _options(world_size, cluster) | {
        "job-name": folder.name,
        "output": f"{log}_0.log",
        "array": f"0-{tasks - 1}%{min(tasks, cluster.parallel)}" if tasks > 1 else None,
        "dependency": "afterok:" + ":".join(after) if after else None,
        "exclude": ",".join(filter(None, excluded)) or None,
    }
    record, runs, data = (
        str(path) for path in (folder / "array.json", folders.runs.resolve(), folders.data.resolve())
    )
    # One rank that fails ends the others. srun takes no --cpus-per-task from sbatch since SLURM 22.05.
    srun = ["srun", "--unbuffered", "--output", f"{log}_%t.log"]
    own: dict[str, str | int] = {"kill-on-bad-exit": 1, "cpus-per-task": cluster.asked.cpus_per_rank}
    python = [sys.executable, "-u", "-m"]
    ranks = shlex.join([*srun, *_words(own | cluster.srun), *python, "slurm.worker", record, runs, data])
    attempts = shlex.join([*python, "slurm.attempts", record, runs])
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {word}" for word in _words(dict(sorted(options.items())), shlex.quote)),
        "#SBATCH --requeue",
        f"suite_ended={shlex.quote(str(folder))}/{ENDED.format(*THIS_ATTEMPT)}",
        *_body(cluster, code, ranks, attempts),
    ]
    return "\n".join(lines) + "\n"


THIS_ATTEMPT = "${SLURM_ARRAY_TASK_ID:-0}", "${SLURM_RESTART_COUNT:-0}"
"""Its task and number, in a script."""


def _words(options: Mapping[str, str | int | None], written: Callable[[str], str] = str) -> list[str]:
    """Options as words of a command, values as `written`; True is one without a value, False and None are none."""
    return [
        f"--{name}" if value is True else f"--{name}={written(str(value))}"
        for name, value in options.items()
        if value is not None and value is not False
    ]


def _options(world_size: int, cluster: Cluster) -> dict[str, str | int | None]:
    """What one job asks for, by sbatch's names; None for what it does not ask for."""
    nodes = cluster.nodes(world_size)
    ranks = world_size // nodes
    asked: dict[str, str | int | None] = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": str(cluster.minutes),
        "nodes": str(nodes),
        "ntasks-per-node": str(ranks),
        "cpus-per-task": str(cluster.cpus_per_rank),
        "gpus-per-node": str(ranks) if cluster.gpus_per_node else None,
        "mem": f"{round(1000 * cluster.memory_gb_per_rank * ranks)}MB",
        "signal": f"USR2@{cluster.warning_seconds}",
        "open-mode": "append",  # a further attempt writes after the one before
        "kill-on-invalid-dep": "yes",
    }
    return asked | dict.fromkeys(needless(cluster.sbatch)) | cluster.sbatch


def _body(cluster: Cluster, code: Path, ranks: str, attempts: str) -> list[str]:
    """The lines of a script that start the `ranks` and, where these fail, ask for further `attempts`."""
    setup = [f"eval {shlex.quote(chr(10).join(cluster.setup))}"] if cluster.setup else []
    asked_in_it = [
        '[ -e "$suite_ended" ] || (  # Python may need what `setup` loads',
        *setup,
        "suite_code",
        f'exec {attempts} "$suite_status"',
        ")",
    ]
    return [
        f"suite_path=$PATH{_path_of_slurm()}",
        "readonly suite_ended suite_path",
        "suite_code() {",
        # without PYTHONSAFEPATH a folder suite or slurm where the job was sent from is taken for the code
        *_exports({"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}),
        'export PATH="$PATH:$suite_path"',
        "}",
        "suite_environment() {",
        *_environment(cluster),
        "suite_code",
        "}",
        "set -m  # each command in a process group of its own, which alone `kill 0` in `setup` ends",
        "(  # a shell of its own: whatever `setup` and [environment] do, the lines below decide how the job ends",
        "suite_environment",
        *setup,
        "suite_environment",
        f"exec {ranks}",
        ")",
        "suite_status=$?",
        "suite_code",
        f'[ -e "$suite_ended" ] || {attempts} "$suite_status"',
        *(asked_in_it if setup else []),
        f'[ -e "$suite_ended" ] || exec {attempts} "$suite_status"',
        'read -r suite_status < "$suite_ended"',
        'exit "$suite_status"',
    ]


def _path_of_slurm() -> str:
    """Where SLURM's commands are here, to be appended to a PATH: a site may hand on no environment to jobs."""
    found = shutil.which("scontrol")
    return f":{shlex.quote(str(Path(found).parent))}" if found else ""


def _exports(values: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def _environment(cluster: Cluster) -> list[str]:
    """The lines of a script that set what the ranks need, after `setup`, which may have set something else."""
    # Without SLURM_EXPORT_ENV srun hands nothing on where a site exports nothing by default.
    # A node whose driver is broken ends the job, which else would compute on its CPU.
    device = {"SUITE_DEVICE": "cuda"} if cluster.asked.gpus_per_node else {}
    return _exports(device | cluster.environment | {"SLURM_EXPORT_ENV": "ALL"})
