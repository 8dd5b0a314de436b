"""Sends arrays of jobs to SLURM: each stage exactly once, whoever is killed on the way.

An array of jobs is written down before it is sent, under a name made of what it holds; whoever comes after a crash
finds by that name what SLURM has, and sends only what it has not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slurm import client, sbatch
from slurm.arrays import Array, read_array
from slurm.attempts import Task, suspects
from slurm.cluster import BUDGETS, Cluster, largest_array, without
from suite.launch.grouping import jobs
from suite.recipe import Stage
from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.files import Folders, read_bytes, write_bytes, write_json
from suite.record.provenance import COPIED, ROOT, commit_and_diff, of_copy
from suite.record.waiting import lock_exclusively

LIGHT_JOBS = 4
"""Into how many jobs the light stages of one training are cut."""


SUSPECT_SECONDS = 24 * 3600
"""How long a node that was lost gets no job of a new submission."""


@dataclass
class Sender:
    """Sends jobs for one runs folder. Its records, logs and copies of the code lie in runs/slurm/."""

    folders: Folders
    cluster: Cluster
    ending: int = 0
    """How many jobs were about to end at the last check: stopped, but still in the queue."""

    @property
    def folder(self) -> Path:
        """Where its records are."""
        return self.folders.runs.resolve() / "slurm"

    @property
    def _owner(self) -> str:
        """A number that this runs folder keeps: another folder with the same sweep has jobs of other names. A new one
        takes the place of one that is damaged: jobs that were sent have their own in their records."""
        file = self.folder / "owner"
        try:
            owner = json.loads(read_bytes(file))
        except (FileNotFoundError, ValueError, RecursionError):
            owner = None
        except OSError as error:
            raise SuiteError(f"{file} {error}; move it away") from None
        if not owner or not isinstance(owner, str):
            owner = uuid.uuid4().hex
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(owner, file)
        return owner

    @contextmanager
    def only_one(self) -> Iterator[int]:
        """One launcher at a time on this runs folder; a second waits. Gives the number of the file that is locked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "a", opener=_without_links) as stream:
            lock_exclusively(stream, f"another launch or cancel is at work in {self.folder}")
            yield stream.fileno()

    def arrays(self) -> list[Array]:
        """All that was written down, sent or not."""
        found = []
        for file in sorted(self.folder.glob("suite-*/array.json")):
            found.append(read_array(file))
        return found

    def send(self, pending: Sequence[Stage]) -> list[Array]:
        """Send the stages that are neither done nor with SLURM already; the arrays that were sent.

        Raises SuiteError where the cluster refuses, or a disk is full.
        """
        sent: list[Array] = []
        with self.only_one() as lock:

            def handle(array: Array, text: str) -> Array:
                try:
                    sent.append(self._send(array, text, lock))
                except (SuiteError, OSError) as error:
                    count = sum(len(done.tasks) for done in sent)
                    words = f"{error} (sent before: {counted(count, 'job')}; resume sends the rest)"
                    raise SuiteError(words) from None
                return sent[-1]

            self._each_missing(pending, largest_array(), handle)
        return sent

    def planned(
        self, pending: Sequence[Stage], largest: int, is_here: bool = True
    ) -> list[tuple[Array, str]]:
        """The arrays of up to `largest` tasks that `send` would send now, each with its sbatch text; all, where no
        SLURM `is_here` to say what it has."""
        planned: list[tuple[Array, str]] = []

        def note(array: Array, text: str) -> Array:
            planned.append((array, text))
            return dataclasses.replace(array, job_id=f"<{array.name}>")

        with self.only_one():
            self._each_missing(pending, largest, note, is_here)
        return planned

    def _each_missing(
        self,
        pending: Sequence[Stage],
        largest: int,
        handle: Callable[[Array, str], Array],
        is_here: bool = True,
    ) -> None:
        """Give `handle` each array that SLURM lacks, with its sbatch text, what is needed first; it returns the array
        with its job's id."""
        known = self.adopt() if is_here else []
        task_of = self._task_of(known)
        missing = [stage for stage in pending if stage.key not in task_of]
        code, avoid = self._snapshot(), self._avoided(missing) if is_here else []
        for array in self._grouped(missing, task_of, known, largest):
            handled = handle(array, self._text(array, task_of, code, avoid))
            task_of |= {key: (handled, n) for n, task in enumerate(array.tasks) for key in task}

    def _task_of(self, arrays: Sequence[Array]) -> dict[str, tuple[Array, int]]:
        """By key the array and the task of each stage that SLURM has and that was not cancelled."""
        alive = self.alive(arrays) if arrays else []
        return {
            key: (array, n)
            for array, n in alive
            for key in array.tasks[n]
            if key not in self.task(array, n).skipped
        }

    def task(self, array: Array, number: int) -> Task:
        """A task of an array, with what is recorded of it."""
        return Task(self.folder / array.name / "array.json", number, self.folders.runs)

    def _grouped(
        self,
        stages: Sequence[Stage],
        task_of: dict[str, tuple[Array, int]],
        known: Sequence[Array],
        largest: int,
    ) -> Iterator[Array]:
        """Jobs of one shape that wait for the same tasks, in arrays of `largest` at most, what is needed first."""
        pending = {stage.key for stage in stages}
        groups: dict[tuple[int, bool, tuple[str, ...]], list[tuple[str, ...]]] = {}
        for job in jobs(stages, LIGHT_JOBS):
            wanted = {needed.key for stage in job for needed in stage.needs}
            trains = job[0].trains_by is not None
            shape = job[0].world_size, trains, tuple(sorted(wanted & (pending | task_of.keys())))
            groups.setdefault(shape, []).append(tuple(stage.key for stage in job))
        sent = [task for array in known for task in array.tasks]
        for (world_size, trains, needs), tasks in groups.items():
            after = tuple(sorted({(task_of[key][0].name, task_of[key][1]) for key in needs}))
            for start in range(0, len(tasks), largest):
                part = tuple(tasks[start : start + largest])
                attempt = 1 + max(sent.count(task) for task in part)
                retries = BUDGETS | self.cluster.retries
                yield Array(part, world_size, self._owner, after, attempt, retries=retries, trains=trains)

    def _avoided(self, stages: Sequence[Stage]) -> list[str]:
        """The nodes that jobs of this folder lost lately, and can do without."""
        suspected = suspects(self.folder, time.time() - SUSPECT_SECONDS)
        widest = max((self.cluster.nodes(stage.world_size) for stage in stages), default=1)
        return without(suspected, self.cluster, widest) if suspected else []

    def _text(
        self, array: Array, task_of: dict[str, tuple[Array, int]], code: Path, avoid: Sequence[str]
    ) -> str:
        named = {at[0].name: at[0] for at in task_of.values()}
        after = [named[name].task_id(number) for name, number in array.after]
        folder, count, cluster = self.folder / array.name, len(array.tasks), self.cluster.of(array.trains)
        return sbatch.text(folder, array.world_size, count, after, cluster, self.folders, code, avoid)

    def _send(self, array: Array, text: str, lock: int) -> Array:
        """Write down, sbatch, write down the id. Killed in between, or where sbatch gave no answer in time, `adopt`
        finds by the name whether SLURM has it; no other launcher asks before that sbatch has ended."""
        record = self.folder / array.name / "array.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        array.write(record)
        file = record.with_name("sbatch.sh")
        write_bytes(os.fsencode(text), file)
        answer = client.ask("sbatch", "--parsable", str(file), holding=(lock,))
        job = client.number_in(answer) or self._ids([array]).get(array.name)
        if job is None:
            raise SuiteError(
                f"sbatch gave no job's number but {answer.strip()[:200]!r}, and squeue has no job {array.name}"
            )
        recorded = dataclasses.replace(array, job_id=job)
        recorded.write(record)
        return recorded

    def adopt(self) -> list[Array]:
        """The arrays that SLURM has. Those that were written down and never sent are forgotten; those that were sent
        by a launcher that died before it could note the id are found by their name."""
        listed = self.arrays()
        unsure = [array for array in listed if array.job_id is None]
        there = self._ids(unsure)
        for array in unsure:
            record = self.folder / array.name / "array.json"
            listed.remove(array)
            if array.name in there:
                listed.append(dataclasses.replace(array, job_id=there[array.name]))
                listed[-1].write(record)
            else:
                record.unlink()
        return listed

    def _ids(self, arrays: Sequence[Array]) -> dict[str, str]:
        """By name the job ids that SLURM has of arrays."""
        names = [array.name for array in arrays]
        states = (*client.ended(names).values(), *client.queued(names).values())
        return {state.name: state.id.split("_")[0] for state in states}

    def alive(self, arrays: Sequence[Array]) -> list[tuple[Array, int]]:
        """The tasks that wait or run, and may yet."""
        states = client.queued(array.name for array in arrays)
        never = {identity for identity, job in states.items() if job.reason == "DependencyNeverSatisfied"}
        self.ending = sum(job.state == "COMPLETING" for job in states.values())
        alive = states.keys() - never
        return [(a, n) for a in arrays for n in range(len(a.tasks)) if a.task_id(n) in alive]

    def _snapshot(self) -> Path:
        """A copy of the code as it is now, which is what the jobs run, however long they wait. One that is there is
        read again: where files of it were changed, purged or added it is replaced."""
        names = ("suite", "slurm")
        listed = [file for name in names for file in sorted((ROOT / name).rglob("*.py"))]
        files = {file.relative_to(ROOT): file.read_bytes() for file in listed}
        content = b"".join(str(name).encode() + b"\0" + text for name, text in files.items())
        copy = self.folder / "code" / hashlib.sha256(content).hexdigest()[:16]
        if not _holds(copy, files):
            fresh, old = copy.with_suffix(".writing"), copy.with_suffix(".old")
            for folder in (fresh, old):
                _remove(folder)
            for name, text in files.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(text)
            write_json(commit_and_diff(), fresh / COPIED)
            if os.path.lexists(copy):
                copy.rename(old)
            fresh.rename(copy)
            _remove(old)
        return copy


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _remove(path: Path) -> None:
    """A folder with all that is in it, or a link, which is not followed."""
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _holds(copy: Path, files: Mapping[Path, bytes]) -> bool:
    """Whether a copy of the code has these files and no others. Its bytecode, which Python makes anew, is removed."""
    if copy.is_symlink():
        return False
    for folder in list(copy.rglob("__pycache__")):
        shutil.rmtree(folder, ignore_errors=True)
    found = [path for path in copy.rglob("*") if path.is_symlink() or not path.is_dir()]
    try:
        there = {path.relative_to(copy): path.read_bytes() for path in found if not path.is_symlink()}
        of_copy(copy / COPIED)
        del there[Path(COPIED)]
    except (OSError, KeyError, SuiteError):
        return False
    return len(found) == len(there) + 1 and there == files
