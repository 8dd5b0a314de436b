"""What a job runs on each of its ranks: the stages of its task; and another turn when its time is up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from suite.signals import REQUEUE

WAIT_SECONDS = 120
"""How long ranks wait for the first one to say where they meet."""

LAST_SECONDS = 60
"""How long a rank that has saved waits for SLURM to end it: a job that ended by itself would count as failed."""


def main(record: str, runs: str, data: str) -> int:
    """Run the stages of this task; the exit status."""
    tasks = json.loads(Path(record).read_text())["tasks"]
    keys = tasks[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
    _set_ranks(Path(record).parent)
    from suite.__main__ import main as suite  # not before the number of threads is set: it imports torch

    status = suite(["run", *keys, "--runs", runs, "--data", data])
    if status == REQUEUE:
        _end_turn([Path(runs) / key for key in keys])
    return status


def _set_ranks(folder: Path) -> None:
    """RANK, LOCAL_RANK, WORLD_SIZE and where they meet, as torchrun sets them. Every rank sees its node's GPUs."""
    here, rank = os.environ, os.environ["SLURM_PROCID"]
    here |= {"RANK": rank, "LOCAL_RANK": here["SLURM_LOCALID"], "WORLD_SIZE": here["SLURM_NTASKS"]}
    here["LOCAL_WORLD_SIZE"] = str(int(here["SLURM_NTASKS"]) // int(here["SLURM_NNODES"]))
    here.setdefault("OMP_NUM_THREADS", here.get("SLURM_CPUS_PER_TASK", "1"))
    if here["SLURM_NTASKS"] == "1":
        return
    meeting = folder / f"meeting-{here['SLURM_JOB_ID']}.{here.get('SLURM_RESTART_COUNT', '0')}"
    if rank == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        fresh = meeting.with_suffix(".writing")
        fresh.write_text(f"{here['SLURMD_NODENAME']} {port}")
        fresh.replace(meeting)
    deadline = time.monotonic() + WAIT_SECONDS
    while not meeting.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{meeting} did not appear in {WAIT_SECONDS} s; do the nodes share {folder}?")
        time.sleep(0.2)
    here["MASTER_ADDR"], here["MASTER_PORT"] = meeting.read_text().split()


def _end_turn(folders: list[Path]) -> None:
    """After a stop that is saved. SIGUSR2 is SLURM's warning before the time limit: the job asks for another turn.
    SIGTERM is a cancellation or a preemption: what becomes of the job is SLURM's to say, which ends it presently."""
    from suite import events

    signals = [journal[-1].get("signal") for folder in folders if (journal := events.read(folder))]
    if os.environ["RANK"] == "0" and "SIGUSR2" in signals:
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], timeout=60, check=False)
    time.sleep(LAST_SECONDS)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
