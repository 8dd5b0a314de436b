"""What every launcher does alike, through the commands of a user: plan, launch, status, logs, cancel, resume."""

from __future__ import annotations

import os
import re
import signal

import pytest
from fakes.statuses import status_of
from fakes.user import User

from suite.recipe.words import counted
from suite.record.journal import read_events, read_progress


def ranks(user: User) -> tuple[str, str]:
    """torchrun gives a training two ranks; the others one, to save the time."""
    return "--ranks", "2" if user.on == "torchrun" else "1"


def test_a_plan_shows_the_jobs_in_full_in_the_order_in_which_they_start_and_submits_none(user: User) -> None:
    said = user("plan", "own.py", *user.by, *ranks(user))
    first, *further = [line for line in said.splitlines() if re.search(r" ranks?, after ", line)]
    assert (
        first.endswith(f"{counted(int(ranks(user)[1]), 'rank')}, after nothing") and "train" in first + said
    )
    assert further and not any(line.endswith("after nothing") for line in further)
    command = "-m slurm.worker" if user.on == "slurm" else "-m suite run"
    assert said.count(command) == 1 + len(further)
    assert not [
        *user.runs.glob("local/*"),
        *user.runs.glob("slurm/suite-*"),
        *user.runs.glob("*/events.jsonl"),
    ]


def test_what_the_launcher_cannot_do_is_refused_before_anything_is_recorded(user: User) -> None:
    refused = user.attempt("launch", "own.py", *user.by, "--ranks", "40", "--batch", "40")
    reason = (
        "a stage takes 10 nodes, and partition main has 4" if user.on == "slurm" else "shared by 40 ranks"
    )
    assert refused.returncode == 2 and reason in " ".join(refused.stderr.split()), refused.stderr
    assert not (user.runs / "sweeps").exists() and not (user.runs / "launched").exists()


def test_what_runs_is_cancelled_so_that_it_saves_what_waits_never_begins_and_resume_does_the_rest(
    user: User,
) -> None:
    user("methods")  # the first command takes seconds, in which the training may end
    slow = ("--network", "tiny.py:slow", "--epochs", "20", "--batch", "24")  # 60 steps
    user.launch_and_leave(*slow, *ranks(user))
    user.until(lambda: (user.runs / "sweeps" / "own.json").exists())
    training, first, second = user.stages()
    folder = user.runs / training.key
    user.until(lambda: any(event["event"] == "metrics" for event in read_events(folder)))

    user.until(lambda: "epoch 1/20  test top-1" in user("logs", training.key))
    said = user("status", "own")
    assert "3 stages: 1 running, 2 queued" in said, said
    again = user.attempt("launch", "own.py", *user.by, *slow, *ranks(user))
    if user.on == "slurm":
        assert "0 of 3 stages sent" in again.stdout, again.stdout + again.stderr
    else:
        assert again.returncode == 2 and "wait for it, or" in again.stderr, again.stdout + again.stderr
    refused = user.attempt("logs", first.key)
    assert refused.returncode == 2 and "has written anything yet" in refused.stderr
    assert "1 job of own cancelled; `suite resume own`" in user("cancel", "own", "--only", first.key)
    assert "3 stages: 1 running, 1 stopped, 1 queued" in user("status", "own")
    assert user("cancel", "own").startswith("2 jobs of own cancelled")
    user.nothing_runs()

    events = read_events(folder)
    assert (events[-1]["event"], events[-1]["signal"]) == ("interrupted", "SIGTERM")
    assert len(list(folder.glob("resume-*.pt"))) == 1
    assert [[event["event"] for event in read_events(user.runs / s.key)] for s in (first, second)] == [
        ["cancelled"],
        ["cancelled"],
    ]
    assert "nothing of own runs or waits" in user("cancel", "own")
    assert "3 stages: 3 stopped" in user("status", "own")

    user.slow.unlink()
    user.resume_and_leave()
    user.all_done()
    user.nothing_runs()
    names = [event["event"] for event in read_events(folder)]
    assert names.count("resumed") == 1 and names.count("finished") == 1
    assert "%  " in user("logs", second.key, "--follow")
    assert "own: all is done" in user("resume", "own")


@pytest.mark.parametrize(
    "user",
    ["here", *(pytest.param(on, marks=pytest.mark.long) for on in ("torchrun", "slurm"))],
    indirect=True,
)
def test_a_run_that_is_killed_has_failed_with_its_cause(user: User) -> None:
    """Of torchrun and SLURM see also tests/test_ranks.py and tests/slurm/test_attempts.py."""
    user.launch_and_leave("--epochs", "1000000", "--only", "train", *ranks(user))
    user.until(lambda: (user.runs / "sweeps" / "own.json").exists())
    training, folder = user.training()
    user.until(lambda: read_progress(folder) is not None)
    os.kill(user.process_of(training), signal.SIGKILL)
    user.comes_to(training, "failed")
    user.nothing_runs()
    now = status_of(training, user.runs)
    assert now.cause == "code" and "recorded no error" in now.error, now.error
    assert f"code: {now.error[:40]}" in user("logs", "own", "--errors")
    assert "3 stages: 1 failed, 2 pending" in user("status", "own")
