"""The sbatch script of an array, as submitit writes it, and what becomes of a job that fails."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slurm.cluster import Cluster
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
    from submitit.slurm.slurm import _make_sbatch_string

    nodes = cluster.nodes(world_size)
    ranks = world_size // nodes
    places = folder / "array.json", folders.runs.resolve(), folders.data.resolve()
    written = str(
        _make_sbatch_string(
            command=shlex.join([sys.executable, "-u", "-m", "slurm.worker", *map(str, places)]),
            folder=folder,
            job_name=folder.name,
            partition=cluster.partition,
            account=cluster.account,
            qos=cluster.qos,
            constraint=cluster.constraint,
            time=cluster.minutes,
            nodes=nodes,
            ntasks_per_node=ranks,
            cpus_per_task=cluster.cpus_per_rank,
            gpus_per_node=ranks if cluster.gpus_per_node else None,
            mem=f"{round(1000 * cluster.memory_gb_per_rank * ranks)}MB",
            signal_delay_s=cluster.warning_seconds,
            array_parallelism=cluster.parallel,
            map_count=tasks if tasks > 1 else None,
            setup=_before_the_suite(cluster, code),
            stderr_to_stdout=True,
            wckey=None,  # type: ignore[arg-type]  # it has one of its own, which some clusters refuse
            # srun has not taken the latter from sbatch since SLURM 22.05
            srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_rank}"],
            additional_parameters=_own_options(after, avoid),
        )
    ).replace("_log.out", ".log")
    afterwards = shlex.join([sys.executable, "-u", "-m", "slurm.attempts", *map(str, places[:2])])
    return f"{written}\nstatus=$?\n[ $status = 0 ] || exec {afterwards} $status\n"


def _before_the_suite(cluster: Cluster, code: Path) -> list[str]:
    """The lines of a script that come before the suite's."""
    # Without SLURM_EXPORT_ENV srun hands nothing on where a site exports nothing by default. Without PYTHONSAFEPATH a
    # folder named suite or slurm where the job was sent from is taken for the code.
    own = {"PYTHONPATH": str(code), "SLURM_EXPORT_ENV": "ALL", "PYTHONSAFEPATH": "1"}
    environment = {**cluster.environment, **own}
    return [*cluster.setup, *(f"export {name}={shlex.quote(value)}" for name, value in environment.items())]


def _own_options(after: Sequence[str], avoid: Sequence[str]) -> dict[str, Any]:
    """The options of sbatch that submitit has no name for."""
    own: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes"}
    if avoid:
        own["exclude"] = ",".join(avoid)
    if after:
        own["dependency"] = "afterok:" + ":".join(after)
    return own
