"""Why a run ended: a table of cases over all causes, and what no case may change."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slurm.cluster import BUDGETS
from suite.recipe.errors import SuiteError
from suite.record.cause import ACCOUNTING, ASKED, CAUSES, Cause, cause_of
from suite.train.tally import DivergedError

OOM = "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0"


def failed(cause: str) -> dict[str, Any]:
    return {"event": "failed", "cause": cause, "error": "words"}


def interrupted(signal: str) -> dict[str, Any]:
    return {"event": "interrupted", "signal": signal}


WORKING = {"event": "metrics", "values": {"top1": 90.0}}

IN_THE_PROCESS: list[tuple[BaseException, Cause]] = [
    (ValueError("wrong shape"), "code"),
    (SuiteError("no intact CIFAR-10"), "code"),
    (DivergedError("the loss became inf or NaN in step 3"), "diverged"),
    (MemoryError(), "memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
    (RuntimeError("can't start new thread"), "memory"),
    (OSError(errno.ENOSPC, "No space left on device"), "disk"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk"),
    (OSError(errno.ENOENT, "No such file"), "code"),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "node"),
    (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), "node"),
]

HERE: list[tuple[dict[str, Any], Cause | None]] = [
    ({"exit_status": 0}, None),
    ({"exit_status": None}, None),
    ({"exit_status": 1}, "code"),
    ({"exit_status": -9, "journal": [WORKING]}, "code"),
    ({"exit_status": -11, "journal": [WORKING]}, "code"),
    ({"exit_status": 1, "journal": [failed("disk")]}, "disk"),
    ({"exit_status": 1, "journal": [failed("diverged")]}, "diverged"),
    ({"exit_status": 1, "journal": [failed("node")]}, "node"),
    ({"exit_status": 1, "journal": [failed("memory")]}, "memory"),
    ({"exit_status": 1, "journal": [failed("a word of another version")]}, "code"),
    ({"exit_status": 75, "journal": [interrupted("SIGTERM")]}, "cancelled"),
    ({"exit_status": 75, "journal": [interrupted("SIGINT")]}, "cancelled"),
    ({"exit_status": 75, "journal": [interrupted("SIGUSR2")]}, "time"),
    ({"exit_status": -15}, "cancelled"),
    ({"exit_status": 130}, "cancelled"),
    ({"exit_status": -15, "journal": [WORKING]}, "code"),
    ({"exit_status": 1, "journal": [{"event": "cancelled"}]}, "cancelled"),
]

ON_A_CLUSTER: list[tuple[dict[str, Any], Cause | None]] = [
    ({"accounting": ""}, None),
    ({"accounting": "RUNNING"}, None),
    ({"accounting": "COMPLETED", "exit_status": 0}, None),
    ({"accounting": "", "exit_status": 137, "journal": [WORKING]}, "code"),
    ({"accounting": "", "exit_status": 143}, "code"),
    ({"accounting": "", "exit_status": 137, "journal": [WORKING], "logs": OOM}, "memory"),
    ({"accounting": "", "exit_status": 1, "journal": [failed("code")], "logs": OOM}, "memory"),
    ({"accounting": "", "exit_status": 1, "journal": [failed("disk")], "logs": OOM}, "disk"),
    ({"accounting": "", "exit_status": 75, "journal": [interrupted("SIGUSR2")]}, "time"),
    (
        {"accounting": "", "exit_status": 75, "journal": [interrupted("SIGUSR2")], "preempted": True},
        "preempted",
    ),
    (
        {"accounting": "", "exit_status": 75, "journal": [interrupted("SIGTERM")], "preempted": True},
        "preempted",
    ),
    ({"accounting": "", "exit_status": 75, "journal": [interrupted("SIGTERM")]}, None),
    ({"accounting": "CANCELLED", "exit_status": 0, "journal": [interrupted("SIGTERM")]}, "cancelled"),
    ({"accounting": "TIMEOUT", "journal": [interrupted("SIGTERM")]}, "time"),
    ({"accounting": "FAILED", "exit_status": 75, "journal": [interrupted("SIGTERM")]}, "cancelled"),
    ({"accounting": "FAILED", "exit_status": 7}, "code"),
    ({"accounting": "FAILED"}, "code"),
    ({"accounting": "FAILED", "exit_status": 1, "logs": OOM}, "memory"),
    ({"accounting": "FAILED", "exit_status": -53}, "node"),
    ({"accounting": "FAILED", "exit_status": -53, "logs": "it began"}, "code"),
    ({"accounting": "OUT_OF_MEMORY", "exit_status": 1, "journal": [failed("code")]}, "memory"),
    ({"accounting": "CANCELLED", "exit_status": 0, "journal": [failed("code")]}, "code"),
    ({"accounting": "NODE_FAIL", "exit_status": 1, "journal": [WORKING]}, "node"),
]


@pytest.mark.parametrize(("error", "cause"), IN_THE_PROCESS, ids=str)
def test_an_exception_tells_the_cause(error: BaseException, cause: Cause) -> None:
    assert cause_of(error=error) == cause
    assert cause_of(error=error, accounting="TIMEOUT", exit_status=0) == cause, "it decides alone"


@pytest.mark.parametrize(("known", "cause"), HERE, ids=str)
def test_the_cause_of_a_process_of_this_machine(known: dict[str, Any], cause: Cause | None) -> None:
    assert cause_of(**known) == cause


@pytest.mark.parametrize(("known", "cause"), ON_A_CLUSTER, ids=str)
def test_the_cause_of_a_job_of_a_cluster(known: dict[str, Any], cause: Cause | None) -> None:
    assert cause_of(**known) == cause


@pytest.mark.parametrize(("state", "cause"), ACCOUNTING.items())
def test_where_nothing_else_is_known_the_schedulers_state_decides(state: str, cause: Cause) -> None:
    assert cause_of(accounting=state) == cause
    assert cause_of(accounting=state, exit_status=1, journal=[WORKING]) == cause


def test_the_tables_have_every_cause_and_each_has_a_budget_of_retries_or_is_asked_for() -> None:
    cases = {cause for table in (IN_THE_PROCESS, HERE, ON_A_CLUSTER) for _, cause in table}
    assert cases - {None} == set(CAUSES)
    assert {*BUDGETS, "cancelled"} == set(CAUSES), "nobody wants a run again that he has cancelled"


EVENTS = st.one_of(
    st.builds(failed, st.sampled_from([*CAUSES, "?"])),
    st.builds(interrupted, st.sampled_from(["SIGTERM", "SIGINT", "SIGUSR2"])),
    st.just(WORKING),
    st.just({"event": "cancelled"}),
)


@given(
    st.lists(EVENTS, max_size=3),
    st.sampled_from([None, 0, 1, 75, 137, -9, -53, *ASKED]),
    st.sampled_from([None, "", "FAILED", "COMPLETED", "something new", *ACCOUNTING]),
    st.booleans(),
    st.sampled_from(["", "it began", OOM]),
)
def test_any_evidence_gives_a_cause_of_the_list_or_none(
    journal: list[dict[str, Any]], exit_status: int | None, accounting: str | None, preempted: bool, logs: str
) -> None:
    known: dict[str, Any] = {"exit_status": exit_status, "accounting": accounting, "logs": logs}
    found = cause_of(journal=journal, preempted=preempted, **known)
    assert found in (None, *CAUSES)
    if any(event["event"] == "failed" for event in journal):
        assert found is not None or any(event["event"] == "interrupted" for event in journal)
