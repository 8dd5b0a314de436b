"""The attempts of a job: why each one ended, and whether there is another.

SLURM starts a job again whose node is lost or that is preempted; a job whose time is up, or whose node is broken, asks
for it itself. Each cause has a budget, and a job that makes no progress in two attempts in a row has no other. The
attempts of a task are recorded beside its job's record, as JSON lines.

The batch script of a job that fails comes here: `python -m slurm.attempts RECORD RUNS STATUS`.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from slurm import client, end_causes
from slurm.arrays import ENDED, read_record
from suite.launch.ends import exit_error, record_failure
from suite.launch.local_process import last_event
from suite.recipe.errors import SuiteError
from suite.record import jsonl
from suite.record.cause import Cause, cause_of
from suite.record.files import open_to_append, write_bytes
from suite.record.journal import read_events, read_outcome
from suite.record.keys import read_skipped
from suite.run import checkpoint

RETRIES_EXHAUSTED = 76
"""Exit status of a task that has no attempt left."""

ENDING = ("cause", "suspects", "ended")
"""The fields of an attempt that are recorded when it ends."""

TRIES = 12
"""How often SLURM is asked to queue a job again, five seconds apart."""

NOTHING_RAN = (
    "the lines of setup in the cluster file ended the job before its ranks; logs KEY shows what they wrote"
)

EXIT_GRACE_SECONDS = 60
"""How long a job that SLURM is about to end waits for it: one that ended by itself would count as failed."""


@dataclass(frozen=True)
class JobAttempt:
    """One start of a task: `number` counts SLURM's restarts from 0, `reached` is how far the stages were then, `logs`
    the bytes of its logs then, `events` the number of the last event of each of its stages then: a clock, which may
    step, does not say which are its own. `cause` is empty while it runs, and after an end that nobody recorded until
    the next attempt finds it out; `suspects` are the nodes at fault."""

    number: int
    job: str
    nodes: str
    began: float
    reached: int
    logs: Mapping[str, int]
    cause: Cause | Literal[""] = ""
    suspects: str = ""
    ended: float = 0.0
    events: Mapping[str, int] | None = None

    def has(self, event: Mapping[str, Any], key: str) -> bool:
        """Whether an event of a stage is of this attempt, or of a later one."""
        if self.events is None:  # an older version recorded the time alone
            return bool(event["time"] >= self.began)
        return bool(event["seq"] > self.events.get(key, 0))


@dataclass(frozen=True)
class Task:
    """One task of an array that was sent: its `record` is runs/slurm/NAME/array.json."""

    record: Path
    index: int
    runs: Path

    @property
    def content(self) -> dict[str, Any]:
        """The record of its array. Raises SuiteError where it is damaged."""
        return read_record(self.record)

    @property
    def skip_list(self) -> Path:
        """The file with those of its stages that were cancelled while the others go on."""
        return self.record.with_name(f"skipped-{self.index}.json")

    @property
    def skipped(self) -> set[str]:
        """The stages in that file. Raises SuiteError where it is damaged."""
        return read_skipped(self.skip_list)

    @property
    def keys(self) -> list[str]:
        """Its stages, in order, but for those that were cancelled."""
        skipped = self.skipped
        return [key for key in self.content["tasks"][self.index] if key not in skipped]

    @property
    def _file(self) -> Path:
        return self.record.with_name(f"turns-{self.index}.jsonl")  # the name that older runs have

    @property
    def attempts(self) -> list[JobAttempt]:
        """All attempts of it so far; a line that is torn or damaged is left out."""
        found: dict[int, JobAttempt] = {}
        for content in jsonl.opened(self._file.read_bytes() if self._file.exists() else b""):
            try:
                if "cause" in content:
                    found[content["number"]] = replace(found[content["number"]], **content)
                else:
                    found[content["number"]] = JobAttempt(**content)
            except (KeyError, TypeError):
                continue
        return list(found.values())

    def _note(self, **content: Any) -> None:
        with open_to_append(self._file) as stream:
            stream.write(b"\n" + jsonl.sealed(content).encode())  # what a crash tore must not swallow it

    @property
    def unfinished(self) -> list[Path]:
        """The run directories of its stages that are neither done nor cancelled."""
        folders = [self.runs / key for key in self.keys]
        return [folder for folder in folders if read_outcome(folder) is None]

    @property
    def reached(self) -> int:
        """How far it is: the stages done and the steps saved of the others. It grows when anything is gained."""
        folders = [self.runs / key for key in self.content["tasks"][self.index]]
        saved = [checkpoint.resumable(folder)[:1] for folder in folders]
        steps = sum(int(file.name.split("-")[1]) for files in saved for file in files)
        return steps + 10**9 * (len(folders) - len(self.unfinished))

    @property
    def logs(self) -> dict[str, int]:
        """The bytes of each log of the task."""
        name = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ["SLURM_JOB_ID"]
        stem = f"{name}_{self.index}" if len(self.content["tasks"]) > 1 else name
        return {file.name: file.stat().st_size for file in self.record.parent.glob(f"{stem}_*.log")}

    def budget(self, cause: str) -> int:
        """How many further attempts the cause may cost."""
        return int(self.content["retries"].get(cause, 0))

    def begin(self) -> str:
        """Record that an attempt begins; the reason where there must be none, which the journals then have too."""
        earlier = self.attempts
        if earlier and not earlier[-1].cause:
            cause = end_causes.of_unrecorded(earlier[-1].job, earlier[-1].nodes)
            earlier[-1] = self._note_end(earlier[-1], cause)
        attempt = self._begun(time.time())
        self._note(**{name: value for name, value in vars(attempt).items() if name not in ENDING})
        reason = self._refused(earlier, attempt.reached)
        if reason and earlier[-1].cause:
            self.fail(earlier[-1].cause, reason)
        return reason

    def _begun(self, began: float) -> JobAttempt:
        number = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        job, nodes = os.environ["SLURM_JOB_ID"], os.environ["SLURM_JOB_NODELIST"]
        keys = self.content["tasks"][self.index] if began else ()
        events = {key: last_event(self.runs / key) for key in keys}
        return JobAttempt(number, job, nodes, began, self.reached, self.logs, events=events)

    def _note_end(self, attempt: JobAttempt, cause: Cause) -> JobAttempt:
        suspects = end_causes.at_fault(attempt.nodes) if cause == "node" else ""
        end = {"cause": cause, "suspects": suspects, "ended": time.time()}
        self._note(number=attempt.number, **end)
        return replace(attempt, **end)  # type: ignore[arg-type]

    def _refused(self, ended: list[JobAttempt], reached: int) -> str:
        """Why there is no attempt after those that have ended, or nothing."""
        if not ended:
            return ""
        cause = ended[-1].cause
        spent, budget = Counter(attempt.cause for attempt in ended)[cause], self.budget(cause)
        if spent > budget:
            return f"ended {spent} times by {cause}, at last on {ended[-1].nodes}; its budget is {budget}"
        if len(ended) > 1 and ended[-2].reached == ended[-1].reached == reached:
            return f"no progress in two attempts in a row ({ended[-2].cause}, {cause})"
        return ""

    def end(self, status: int) -> int:
        """Record why an attempt ended that failed with `status`, and ask SLURM for another where the budget has one.
        The status that the job ends with."""
        if status == 0 and not self.unfinished:
            return 0  # rank 0's own word, on another node, is not to be seen here yet
        attempts = self.attempts
        number = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if status == RETRIES_EXHAUSTED or (attempts and attempts[-1].number > number):
            return (
                1  # in the last case this is what is left of an attempt on a lost node, and has a successor
            )
        if status == 0 and attempts and attempts[-1].number == number:
            return 1  # srun says 0 where it lost its node: SLURM runs the job again, and that attempt records why
        if not attempts or attempts[-1].number < number:  # it ended before it could record that it had begun
            attempts.append(self._begun(began=0.0))
        cause, words = self._cause(attempts[-1], status)
        if not cause:
            print(f"asked to end by {words}; SLURM decides whether the job runs again", flush=True)
            time.sleep(EXIT_GRACE_SECONDS)
            return status
        attempt = self._note_end(attempts[-1], cause)
        reason = self._refused([*attempts[:-1], attempt], self.reached)
        if not reason and _again(attempt):
            print(f"attempt {number} ended by {cause}; the job is queued again", flush=True)
            time.sleep(EXIT_GRACE_SECONDS)
            return status or 1
        self.fail(cause, words or reason or f"ended by {cause}, and SLURM did not queue it again")
        return status or 1

    def settle(self, status: int) -> None:
        """Write down for the script of the job how it ends. Where the disk is full, the script asks again."""
        number = os.environ.get("SLURM_RESTART_COUNT", "0")
        with suppress(OSError):
            write_bytes(b"%d\n" % status, self.record.with_name(ENDED.format(self.index, number)))

    def _cause(self, attempt: JobAttempt, status: int) -> tuple[Cause | None, str]:
        """(the cause of an attempt's end, its words); no cause where SLURM or somebody asked it to end."""
        last = {folder.name: journal[-1] for folder in self.unfinished if (journal := read_events(folder))}
        mine = [event for key, event in last.items() if attempt.has(event, key)]
        signals = [str(event["signal"]) for event in mine if event["event"] == "interrupted"]
        taken = bool(signals) and end_causes.preempted(attempt.job, attempt.began)
        logs = end_causes.written([self.record.parent / name for name in self.logs], attempt.logs)
        cause = cause_of(journal=mine, exit_status=status or 1, accounting="", preempted=taken, logs=logs)
        if signals:
            return cause, "" if cause else signals[0]
        failed = next((event for event in mine if event["event"] == "failed"), None)
        if cause == "memory" and (failed is None or failed["cause"] != cause):
            return cause, end_causes.TOO_LITTLE_MEMORY
        return cause, failed["error"] if failed else exit_error(status) if status else NOTHING_RAN

    def fail(self, cause: Cause, words: str) -> None:
        """Record why in the journals of the stages that were at work, where they do not have it already; where none
        had come to a journal, in that of the first."""
        for folder in [folder for folder in self.unfinished if read_events(folder)] or self.unfinished[:1]:
            record_failure(folder, cause, words)


def _again(attempt: JobAttempt) -> bool:
    """Ask SLURM to queue the job again, away from a node that is at fault; whether it does."""
    if attempt.suspects:
        _keep_away(attempt)
    for _ in range(TRIES):
        try:
            client.ask("scontrol", "requeue", attempt.job)
            return True
        except SuiteError as error:
            print(f"SLURM does not queue the job again: {error}", flush=True)
            time.sleep(5)  # a controller that is down may be up again
    return False


def _keep_away(attempt: JobAttempt) -> None:
    """Submit a small job that excludes the suspects from this job's nodes once it waits in the queue: only a job that
    waits can be changed, and this process ends before that."""
    excluded = ",".join(filter(None, [end_causes.excluded(attempt.job), attempt.suspects]))
    words = f"until scontrol update JobId={attempt.job} ExcNodeList={excluded}; do sleep 1; done"
    names = {"--partition": "SLURM_JOB_PARTITION", "--account": "SLURM_JOB_ACCOUNT", "--qos": "SLURM_JOB_QOS"}
    asked = [f"{option}={os.environ[name]}" for option, name in names.items() if os.environ.get(name)]
    memory = {"--mem": "SLURM_MEM_PER_NODE", "--mem-per-cpu": "SLURM_MEM_PER_CPU"}
    asked += [f"{option}=100M" for option, name in memory.items() if name in os.environ]
    asked += ["--job-name=suite-elsewhere", "--time=10", "--output=/dev/null"]
    try:
        client.ask("sbatch", *asked, f"--exclude={attempt.suspects}", f"--wrap={words}")
    except SuiteError as error:
        print(f"the job may come to {attempt.suspects} again: {error}", flush=True)


def suspects(folder: Path, since: float) -> set[str]:
    """The nodes that attempts of any job recorded in `folder` ended by since that time, as SLURM writes them."""
    found = set()
    for file in folder.glob("suite-*/turns-*.jsonl"):
        task = Task(file.with_name("array.json"), int(file.stem.partition("-")[2]), folder.parent)
        attempts = task.attempts
        late = [one.suspects for one in attempts if one.suspects and one.ended > since]
        found |= {node for nodes in late for node in nodes.split(",")}
    return found


if __name__ == "__main__":
    record, runs, exit_status = sys.argv[1:]
    array_index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    task = Task(Path(record), array_index, Path(runs))
    try:
        ends_with = task.end(int(exit_status))
    except SuiteError as error:
        sys.exit(f"error: {error}")
    task.settle(ends_with)
    sys.exit(ends_with)
