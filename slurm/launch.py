"""Submit a sweep to SLURM in seconds and go home: each stage exactly once, whoever is killed on the way.

An array of jobs is written down before it is sent, under a name made of what it holds; whoever comes after a crash
finds by that name what SLURM has, and sends only what it has not. submitit writes the sbatch text; its idea of a job's
state is not used. Nothing has to stay alive: jobs wait for those they need, and save and queue themselves again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm import causes, clusters
from slurm.clusters import BUDGETS, Cluster, JobState
from slurm.turns import read as turns
from slurm.turns import suspects
from suite import events
from suite.checkpoint import write_json
from suite.jobs import jobs
from suite.provenance import ROOT, commit_and_diff
from suite.recipe import Stage
from suite.settings import Folders
from suite.values import SuiteError

LIGHT_JOBS = 4
"""Into how many jobs the light stages of one training are cut."""

SUSPECT_SECONDS = 24 * 3600
"""How long a node that was lost gets no job of a new submission."""


@dataclass(frozen=True)
class Array:
    """Jobs of one shape that wait for the same: `tasks` holds the keys of each job's stages; `after` is (name, index)
    of the tasks that must succeed before. `owner` tells this runs folder from all others. `job_id` is None from when
    it was written down until SLURM has it. `retries` are the turns that each cause may cost."""

    tasks: tuple[tuple[str, ...], ...]
    world_size: int
    owner: str
    after: tuple[tuple[str, int], ...] = ()
    attempt: int = 1
    job_id: str | None = None
    retries: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The job's name in SLURM, and the record's."""
        content = json.dumps([self.tasks, self.attempt, self.owner]).encode()
        return f"suite-{hashlib.sha256(content).hexdigest()[:16]}"

    def task_id(self, index: int) -> str:
        """SLURM's name of a task; an array of one is a plain job."""
        return f"{self.job_id}_{index}" if len(self.tasks) > 1 else str(self.job_id)


@dataclass
class Slurm:
    """The launcher of a cluster. Its records, logs and copies of the code lie in runs/slurm/."""

    folders: Folders
    cluster: Cluster

    @property
    def _folder(self) -> Path:
        return self.folders.runs.resolve() / "slurm"

    @property
    def _owner(self) -> str:
        """A number that this runs folder keeps: another folder with the same sweep has jobs of other names."""
        file = self._folder / "owner"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(uuid.uuid4().hex, file)
        return str(json.loads(file.read_text()))

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """One launcher at a time on this runs folder; a second waits."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def arrays(self) -> list[Array]:
        """All that was written down, sent or not."""
        found = []
        for file in sorted(self._folder.glob("suite-*/array.json")):
            content = json.loads(file.read_text())
            tasks = tuple(tuple(task) for task in content.pop("tasks"))
            after = tuple((name, index) for name, index in content.pop("after"))
            found.append(Array(tasks=tasks, after=after, **content))
        return found

    def submit(self, pending: Sequence[Stage]) -> list[Array]:
        """Send the stages that are neither done nor with SLURM already; the arrays that were sent.

        Raises SuiteError where the cluster refuses.
        """
        with self.only_one():
            known = self._adopt()
            alive = self._alive(known)
            place = {key: at for at in alive for key in at[0].tasks[at[1]]}
            missing = [stage for stage in pending if stage.key not in place]
            largest, code, avoid = clusters.largest_array(), self._snapshot(), self._avoided(missing)
            sent: list[Array] = []
            for array in self._grouped(missing, place, known, largest):
                try:
                    recorded = self._send(array, code, avoid)
                except SuiteError as error:
                    jobs_sent = sum(len(done.tasks) for done in sent)
                    raise SuiteError(
                        f"{error} ({jobs_sent} jobs were sent before; resume sends the rest)"
                    ) from None
                sent.append(recorded)
                place |= {key: (recorded, n) for n, task in enumerate(array.tasks) for key in task}
        return sent

    def planned(self, pending: Sequence[Stage], largest: int = 1001) -> list[tuple[Array, str]]:
        """The arrays that `submit` would send if SLURM had none, each with its sbatch text."""
        arrays: list[Array] = []
        place: dict[str, tuple[Array, int]] = {}
        for array in self._grouped(pending, place, [], largest):
            named = dataclasses.replace(array, job_id=f"<{array.name}>")
            place |= {key: (named, n) for n, task in enumerate(array.tasks) for key in task}
            arrays.append(named)
        return [(array, self._text(array, place, self._folder / "code")) for array in arrays]

    def _grouped(
        self,
        stages: Sequence[Stage],
        place: dict[str, tuple[Array, int]],
        known: Sequence[Array],
        largest: int,
    ) -> Iterator[Array]:
        """Jobs of one shape that wait for the same tasks, in arrays of `largest` at most, what is needed first."""
        pending = {stage.key for stage in stages}
        groups: dict[tuple[int, tuple[str, ...]], list[tuple[str, ...]]] = {}
        for job in jobs(stages, LIGHT_JOBS):
            wanted = {needed.key for stage in job for needed in stage.needs}
            shape = job[0].world_size, tuple(sorted(wanted & (pending | place.keys())))
            groups.setdefault(shape, []).append(tuple(stage.key for stage in job))
        sent = [task for array in known for task in array.tasks]
        for (world_size, needs), tasks in groups.items():
            after = tuple(sorted({(place[key][0].name, place[key][1]) for key in needs}))
            for start in range(0, len(tasks), largest):
                part = tuple(tasks[start : start + largest])
                attempt = 1 + max(sent.count(task) for task in part)
                retries = BUDGETS | self.cluster.retries
                yield Array(part, world_size, self._owner, after, attempt, retries=retries)

    def _avoided(self, stages: Sequence[Stage]) -> list[str]:
        """The nodes that jobs of this folder lost lately, and can do without."""
        suspected = suspects(self._folder, time.time() - SUSPECT_SECONDS)
        widest = max((self.cluster.nodes(stage.world_size) for stage in stages), default=1)
        return clusters.without(suspected, self.cluster, widest) if suspected else []

    def _send(self, array: Array, code: Path, avoid: Sequence[str]) -> Array:
        """Write down, sbatch, write down the id. Killed in between, or where sbatch gave no answer in time, `_adopt`
        finds by the name whether SLURM has it."""
        record = self._folder / array.name / "array.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(dataclasses.asdict(array), record)
        script = record.with_name("sbatch.sh")
        script.write_text(self._text(array, {}, code, avoid))
        answer = clusters.ask("sbatch", "--parsable", str(script))
        recorded = dataclasses.replace(array, job_id=answer.strip().split(";")[0])
        write_json(dataclasses.asdict(recorded), record)
        return recorded

    def _adopt(self) -> list[Array]:
        """The arrays that SLURM has. Those that were written down and never sent are forgotten; those that were sent
        by a launcher that died before it could note the id are found by their name."""
        listed = self.arrays()
        unsure = [array for array in listed if array.job_id is None]
        there: dict[str, str] = {}
        for state in (
            *clusters.ended(a.name for a in unsure).values(),
            *clusters.queued(a.name for a in unsure).values(),
        ):
            there[state.name] = state.id.split("_")[0]
        for array in unsure:
            record = self._folder / array.name / "array.json"
            listed.remove(array)
            if array.name in there:
                listed.append(dataclasses.replace(array, job_id=there[array.name]))
                write_json(dataclasses.asdict(listed[-1]), record)
            else:
                record.unlink()
        return listed

    def _alive(self, arrays: Sequence[Array]) -> list[tuple[Array, int]]:
        """The tasks that wait or run."""
        states = clusters.queued(array.name for array in arrays)
        return [(a, n) for a in arrays for n in range(len(a.tasks)) if a.task_id(n) in states]

    def states(self) -> dict[str, JobState]:
        """What SLURM last had of each stage, by key. Raises SuiteError where it does not answer."""
        arrays = self.arrays()
        names = [array.name for array in arrays]
        sent = [array.job_id for array in arrays if array.job_id]
        found = clusters.ended(ids=sent) | clusters.queued(names)
        ordered = sorted(arrays, key=lambda array: array.attempt)
        return {
            key: self._explained(found[array.task_id(n)], array, n)
            for array in ordered
            for n, task in enumerate(array.tasks)
            for key in task
            if array.task_id(n) in found
        }

    def _explained(self, job: JobState, array: Array, number: int) -> JobState:
        """With what ended its turns and, of a job that was killed before it could tell, why."""
        folder = self._folder / array.name
        before = [turn.cause for turn in turns(folder / "array.json", number) if turn.cause]
        cause, note = causes.of_job(job, sorted(folder.glob(f"{job.id}_*.log")), self._folder)
        return dataclasses.replace(job, turns=", ".join(before), cause=cause, note=note)

    def cancel(self, keys: Sequence[str]) -> int:
        """Cancel those jobs that wait or run and hold no other stages than those of `keys`; how many."""
        wanted = set(keys)
        with self.only_one():
            known = self._adopt()
            chosen = [(a, n) for a, n in self._alive(known) if set(a.tasks[n]) <= wanted]
            for array, number in chosen:
                clusters.ask("scancel", array.task_id(number))
                for key in array.tasks[number]:
                    folder = self.folders.runs / key
                    if not events.locked(folder) and events.outcome(folder) is None:
                        folder.mkdir(parents=True, exist_ok=True)
                        journal = events.Journal(folder)
                        journal.write("cancelled", job=array.task_id(number))
                        journal.close()
        return len(chosen)

    def log(self, key: str) -> str:
        """What the last job of a stage wrote, of all its ranks. Raises SuiteError where it never started."""
        for array in sorted(self.arrays(), key=lambda array: -array.attempt):
            for number, task in enumerate(array.tasks):
                if key in task:
                    stem = array.task_id(number)
                    files = sorted((self._folder / array.name).glob(f"{stem}_*.log"))
                    if files:
                        return "".join(file.read_text(errors="replace") for file in files)
        raise SuiteError(f"no job of {key} has written anything yet")

    def _snapshot(self) -> Path:
        """A copy of the code as it is now, which is what the jobs run, however long they wait."""
        names = ("suite", "slurm")
        files = [file for name in names for file in sorted((ROOT / name).rglob("*.py"))]
        content = b"".join(str(f.relative_to(ROOT)).encode() + b"\0" + f.read_bytes() for f in files)
        place = self._folder / "code" / hashlib.sha256(content).hexdigest()[:16]
        if not place.exists():
            fresh = place.with_suffix(".writing")
            shutil.rmtree(fresh, ignore_errors=True)
            for file in files:
                (fresh / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, fresh / file.relative_to(ROOT))
            write_json(commit_and_diff(), fresh / "commit.json")
            fresh.rename(place)
        return place

    def _text(
        self, array: Array, place: dict[str, tuple[Array, int]], code: Path, avoid: Sequence[str] = ()
    ) -> str:
        """The sbatch script, as submitit writes it, and what becomes of a job that fails."""
        from submitit.slurm.slurm import _make_sbatch_string

        asked = self.cluster
        nodes = asked.nodes(array.world_size)
        folder = self._folder / array.name
        places = folder / "array.json", self.folders.runs.resolve(), self.folders.data.resolve()
        environment = {**asked.environment, "PYTHONPATH": str(code)}
        setup = [*asked.setup, *(f"export {name}={shlex.quote(v)}" for name, v in environment.items())]
        own: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes"}
        if avoid:
            own["exclude"] = ",".join(avoid)
        afterwards = shlex.join([sys.executable, "-u", "-m", "slurm.turns", *map(str, places[:2])])
        if array.after:
            ids = {a.name: a for a in (*self.arrays(), *(at[0] for at in place.values()))}
            own["dependency"] = "afterok:" + ":".join(ids[name].task_id(n) for name, n in array.after)
        text = str(
            _make_sbatch_string(
                command=shlex.join([sys.executable, "-u", "-m", "slurm.task", *map(str, places)]),
                folder=folder,
                job_name=array.name,
                partition=asked.partition,
                account=asked.account,
                qos=asked.qos,
                constraint=asked.constraint,
                time=asked.minutes,
                nodes=nodes,
                ntasks_per_node=array.world_size // nodes,
                cpus_per_task=asked.cpus_per_rank,
                gpus_per_node=array.world_size // nodes if asked.gpus_per_node else None,
                mem=f"{round(1000 * asked.memory_gb_per_rank * array.world_size / nodes)}MB",
                signal_delay_s=asked.warning_seconds,
                array_parallelism=asked.parallel,
                map_count=len(array.tasks) if len(array.tasks) > 1 else None,
                setup=setup,
                stderr_to_stdout=True,
                wckey=None,  # type: ignore[arg-type]  # it has one of its own, which some clusters refuse
                srun_args=["--kill-on-bad-exit=1"],
                additional_parameters=own,
            )
        ).replace("_log.out", ".log")
        return f"{text}\nstatus=$?\n[ $status = 0 ] || exec {afterwards} $status\n"
