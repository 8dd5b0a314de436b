"""What a job runs on each of its ranks: the stages of its task."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from suite.launch.environment import OF_OTHER_LAUNCHERS
from suite.record.files import write_bytes
from suite.record.waiting import announced
from suite.stop import Stop

WAIT_SECONDS = 120
"""How long ranks wait for rank 0's address and port."""


def main(record: str, runs: str, data: str) -> int:
    """Run the stages of this task; the exit status."""
    Stop().listen()  # SLURM may warn of the time limit while Python still imports
    from slurm.attempts import RETRIES_EXHAUSTED, Task
    from suite.cli.main import main as suite
    from suite.recipe.errors import SuiteError

    os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))  # which torch reads
    task = Task(Path(record), int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")), Path(runs))
    try:
        keys, is_first = task.keys, os.environ["SLURM_PROCID"] == "0"
    except SuiteError as error:  # the record is damaged
        print(f"error: {error}", flush=True)
        return 1
    if not keys:
        if is_first:
            task.settle(0)
        return 0
    os.environ["SUITE_SKIPPED"] = str(task.skip_list)
    if is_first and (reason := task.begin()):
        print(f"this job is not run again: {reason}", flush=True)
        return RETRIES_EXHAUSTED
    _set_ranks(Path(record).parent)
    status = suite(["run", *keys, "--runs", runs, "--data", data])
    if status == 0 and is_first:
        task.settle(0)
    return status


def _set_ranks(folder: Path) -> None:
    """RANK, LOCAL_RANK, WORLD_SIZE and where they meet, as torchrun sets them, in the place of what another launcher
    left in the shell that the job was sent from. Every rank sees its node's GPUs."""
    here, rank = os.environ, os.environ["SLURM_PROCID"]
    for name in filter(OF_OTHER_LAUNCHERS.fullmatch, list(here)):
        del here[name]
    here |= {"RANK": rank, "LOCAL_RANK": here["SLURM_LOCALID"], "WORLD_SIZE": here["SLURM_NTASKS"]}
    here["LOCAL_WORLD_SIZE"] = str(int(here["SLURM_NTASKS"]) // int(here["SLURM_NNODES"]))
    here["SUITE_JOB"] = f"{here['SLURM_JOB_ID']}.{here.get('SLURM_RESTART_COUNT', '0')}"
    if here["SLURM_NTASKS"] == "1":
        return
    meeting = folder / f"meeting-{here['SLURM_JOB_ID']}.{here.get('SLURM_RESTART_COUNT', '0')}"
    if rank == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        write_bytes(f"{here['SLURMD_NODENAME']} {port}".encode(), meeting)
    deadline = time.monotonic() + WAIT_SECONDS
    with announced(f"rank {rank} waits for rank 0, which writes {meeting}"):
        while not meeting.exists():
            if time.monotonic() > deadline:
                sys.exit(f"{meeting} did not appear in {WAIT_SECONDS} s; do the nodes share {folder}?")
            time.sleep(0.2)
    here["MASTER_ADDR"], here["MASTER_PORT"] = meeting.read_text().split()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
