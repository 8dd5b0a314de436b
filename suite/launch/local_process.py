"""A job of this machine: a process, its log, and what becomes of it when it ends or is asked to."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from suite.launch.ends import exit_error, record_failure
from suite.launch.grouping import Job
from suite.recipe.errors import SuiteError
from suite.record.cause import cause_of
from suite.record.journal import read_events, read_outcome
from suite.record.waiting import announced

SAVE_SECONDS = 60.0
"""How long a job that is asked to end may take to save."""

ENDINGS = ("failed", "interrupted", "cancelled", "finished")
"""The events by which a run itself records how it ended."""


@dataclass
class Running:
    """A job that runs on some `slots`: the bytes of its log when it began, and the number of the last event of each of
    its stages then. No time of a clock, which may step."""

    job: Job
    process: subprocess.Popen[bytes]
    slots: list[int]
    log: Path
    log_began: int
    last_events: Mapping[str, int] = field(default_factory=dict)
    asked: float | None = None
    """When it was asked to end, by time.monotonic()."""

    @property
    def keys(self) -> set[str]:
        """Of its stages."""
        return {stage.key for stage in self.job}

    def ask_to_end(self) -> None:
        """Ask it once; one that has not ended SAVE_SECONDS later is killed with all that it started."""
        if self.asked is None:
            self.asked = time.monotonic()
            self.process.terminate()
        elif time.monotonic() > self.asked + SAVE_SECONDS:
            kill_tree(self.process)

    def record_end(self, runs: Path, status: int) -> None:
        """Where it ended with `status` and recorded no error, record why: in the journals of the stages that were at
        work or, where none had come to a journal, in that of the first."""
        if status == 0 or self.asked is not None:
            return
        text = ""
        with suppress(FileNotFoundError), self.log.open("rb") as stream:  # a user may remove run directories
            stream.seek(self.log_began)
            text = stream.read().decode(errors="replace")
        left = unfinished(runs, self.keys)
        opened = [runs / stage.key for stage in self.job if stage.key in left]
        last = {
            folder: [e for e in read_events(folder)[-1:] if e["seq"] > self.last_events.get(folder.name, 0)]
            for folder in opened
        }
        at_work = [folder for folder, events in last.items() if events] or opened[:1]
        for folder in at_work:
            if any(event["event"] in ENDINGS for event in last[folder]):
                continue
            cause = cause_of(journal=last[folder], exit_status=status, logs=text)
            if cause not in (None, "cancelled"):
                record_failure(folder, cause, exit_error(status, text))


def last_event(folder: Path) -> int:
    """The number of the last event in a run directory; 0 before the first."""
    return max((int(event["seq"]) for event in read_events(folder)), default=0)


def unfinished(runs: Path, keys: set[str]) -> set[str]:
    """Those of the stages that are not done. One whose outcome is damaged is none: its next start is refused."""
    return {key for key in keys if not _has_outcome(runs / key)}


def _has_outcome(folder: Path) -> bool:
    try:
        return read_outcome(folder) is not None
    except SuiteError:
        return True


def elastic(ranks: int) -> list[str]:
    """The words that start that many ranks on this machine; none for one."""
    if ranks == 1:
        return []
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    words += ["--local-addr=127.0.0.1"]  # the machine's own name may not resolve, in a container for example
    signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"  # the last is not handed on unless it is named
    return [*words, "--max-restarts=0", "--shutdown-timeout=45", f"--signals-to-handle={signals}"]


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and all that it started, at once; torchrun gives each of its ranks a session of its own."""
    with suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid)]
        for parent in family:
            with suppress(psutil.NoSuchProcess):
                parent.suspend()  # so that it starts no child meanwhile
                family += parent.children()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()


def wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has ended that was asked to, SAVE_SECONDS at most."""
    try:
        with announced(f"process {process.pid} saves and ends, which it has {SAVE_SECONDS:.0f} s for"):
            process.wait(timeout=SAVE_SECONDS)
    except subprocess.TimeoutExpired:
        kill_tree(process)
