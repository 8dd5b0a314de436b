"""Why a run ended without a result: one word of a closed list, decided by one pure function from what is known."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

Cause = Literal["code", "diverged", "memory", "disk", "node", "time", "preempted", "cancelled"]
"""`code`: an error of the program, or a process that was killed and left no message. `time`: the time limit of its
job. `preempted`: another job took its nodes. `cancelled`: somebody asked it to end, and it can go on. `node`: the
machine was lost, or is broken."""

CAUSES: tuple[Cause, ...] = get_args(Cause)

ACCOUNTING: dict[str, Cause] = {
    "TIMEOUT": "time",
    "DEADLINE": "time",
    "PREEMPTED": "preempted",
    "REQUEUED": "preempted",
    "OUT_OF_MEMORY": "memory",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "CANCELLED": "cancelled",
}
"""By the state that a scheduler has of a job (SLURM's names, sacct's manual): the cause that follows from it alone."""

NO_LOG_WRITTEN = -53
"""Exit status of a SLURM job whose log could not be opened (`0:53` in sacct)."""

ASKED = {
    -15: "SIGTERM",
    143: "SIGTERM",
    -2: "SIGINT",
    130: "SIGINT",
    -1: "SIGHUP",
    129: "SIGHUP",
    75: "SIGTERM",
}
"""Exit statuses of a process that was asked to end: negative as Python has them, above 128 as a shell has them, and
75 as `suite run` leaves when it has saved."""

BROKEN_NODE = (
    "uncorrectable ECC",
    "no CUDA-capable device",
    "busy or unavailable",
    "NVLink",
    "GPU is lost",
    "unspecified launch failure",
    "CUDA error: unknown error",
    "system not yet initialized",
    "No CUDA GPUs are available",
    "Found no NVIDIA driver",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "ncclSystemError",
    "remote process exited or there was a network error",
)
"""What CUDA, cuDNN and NCCL report where a node, not the code, is at fault."""

NO_MEMORY_LEFT = (
    "can't allocate memory",
    "annot allocate memory",
    "failed to map segment",
    "can't start new thread",
    "CUDA error: out of memory",
)
"""What torch, the system, the loader of libraries and Python report where there is no memory left."""

KILLED_FOR_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory", "OUT_OF_MEMORY")
"""What SLURM writes into the log of a step that it, or the kernel, has killed."""


def cause_of(
    *,
    error: BaseException | None = None,
    journal: Sequence[Mapping[str, Any]] = (),
    exit_status: int | None = None,
    accounting: str | None = None,
    preempted: bool = False,
    logs: str = "",
) -> Cause | None:
    """The cause of an attempt's end; None while that is not known, or where it has not failed.

    `error` is the exception in the process itself, which decides alone. Otherwise: `journal` has the last event of
    each stage that the attempt left unfinished (none where it came to no event); `exit_status` is that of its process,
    negative for a signal; `accounting` is the scheduler's state of its job, empty while the scheduler has not decided,
    None where there is no scheduler; `preempted` is whether the scheduler has that another job took its nodes; `logs`
    is what the attempt wrote.
    """
    if error is not None:
        return _of_error(error)
    signals = [str(event.get("signal", "")) for event in journal if event["event"] == "interrupted"]
    if not journal and accounting is None and exit_status in ASKED:
        signals = [ASKED[exit_status]]
    if signals:
        return _of_request(signals, accounting, preempted)
    recorded = _recorded(journal)
    if recorded not in (None, "code"):
        return recorded
    decided = ACCOUNTING.get(accounting or "")
    if decided and (not recorded or decided == "memory"):
        return decided
    if exit_status == 0 and not recorded:
        return None
    if recorded or exit_status is not None or accounting == "FAILED":
        if any(words in logs for words in KILLED_FOR_MEMORY):
            return "memory"
        if not recorded and any(words in logs for words in BROKEN_NODE):
            return "node"
        return "node" if exit_status == NO_LOG_WRITTEN and not logs else "code"
    return None


def _recorded(journal: Sequence[Mapping[str, Any]]) -> Cause | None:
    """What the first stage that failed, or was cancelled, recorded; a word that is no Cause counts as "code"."""
    for event in journal:
        if event["event"] == "failed":
            return next((cause for cause in CAUSES if cause == event.get("cause")), "code")
    return "cancelled" if any(event["event"] == "cancelled" for event in journal) else None


def _of_request(signals: Sequence[str], accounting: str | None, preempted: bool) -> Cause | None:
    """Of an attempt that was asked to end: SIGUSR2 is the warning of a time limit, unless another job was the reason.
    Of any other signal the scheduler has later whether it sent it; where there is no scheduler, somebody did."""
    if preempted:
        return "preempted"
    if "SIGUSR2" in signals:
        return "time"
    if accounting == "":
        return None
    return ACCOUNTING.get(accounting or "", "cancelled")


def _of_error(error: BaseException) -> Cause:
    kinds = {kind.__name__ for kind in type(error).__mro__}  # so that this needs no torch
    if "DivergedError" in kinds:
        return "diverged"
    if kinds & {"MemoryError", "OutOfMemoryError"} or any(words in str(error) for words in NO_MEMORY_LEFT):
        return "memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return "disk"
    return "node" if any(words in str(error) for words in BROKEN_NODE) else "code"
