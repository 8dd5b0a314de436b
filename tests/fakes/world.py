"""A small sweep that faults happen to, brought to its end, and then held against one that nobody disturbed."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

from fakes.cluster import Cluster, Place
from fakes.forking import FROM_NOTHING
from fakes.journals import Embedded, Server, difference
from fakes.machine import Machine, Network
from fakes.user import User
from fakes.waiting import until
from suite.launch import verify_resume
from suite.recipe.errors import SuiteError
from suite.record.journal import read_events, read_outcome
from suite.run import checkpoint

DAMAGED = r"(?:checkpoint|remove)[^:;]*?/([0-9a-f]{16})(?:/checkpoint\.pthassha256|andlaunch)"
"""What an error says, without its spaces, of a run directory that is to be removed."""
INCOMPLETE = r"metricsof((?:[0-9a-f]{16},?)+)maybemissing"
"""What `status` says, without its spaces, of runs that are done and whose journals are damaged."""
RECORD = r"scancel--name=(suite-[0-9a-f]{16})"
"""What an error says, without its spaces, of the record of a job array that is to be removed."""
RESUMES = 15
"""How often the user resumes before a sweep counts as lost."""


class World:
    """A folder in which a training and two recipes of it are launched `on` a launcher; the training has 60 steps of
    0.2 s, and saves after each."""

    machine: Machine | None = None
    network: Network | None = None
    server: Server | None = None
    """Of MLflow; the sweep is recorded in a file in its runs folder where there is none."""

    def __init__(self, folder: Path, on: str, cluster: Cluster | None, disk: Path | None) -> None:
        """`disk` is where a small disk is mounted on which the runs shall lie."""
        folder.mkdir(parents=True)
        self.on, self._cluster, self.disk, self._said = on, cluster, disk, ""
        self.user = Place(folder, cluster) if cluster else User(folder, on)
        # The same text in every world, since it is part of the key of a stage.
        own = folder / "tiny.py"
        own.write_text(own.read_text().replace(f"WHILE = {str(self.user.slow)!r}", 'WHILE = ""'))
        self.user.environment |= {"SUITE_SAVE_SECONDS": "0", FROM_NOTHING: "1"}
        if disk:
            (disk / folder.name).mkdir()
            self.user.runs.symlink_to(disk / folder.name)
        ranks = "2" if on == "torchrun" else "1"
        self.options = ("--network", "tiny.py:slow", "--epochs", "20", "--batch", "24", "--ranks", ranks)

    def use(self, machine: Machine | None, network: Network | None, server: Server | None) -> None:
        """Let the sweep have this clock and disk, this network and this server of MLflow."""
        self.machine, self.network, self.server = machine, network, server
        for one in filter(None, (machine, server)):
            self.user.environment |= one.environment

    def cluster(self) -> Cluster:
        """The SLURM of this world."""
        assert self._cluster is not None
        return self._cluster

    def launch(self) -> None:
        """Launch, and go on while it runs."""
        self.user.launch_and_leave(*self.options)

    def at_work(self) -> bool:
        """Whether a stage has begun."""
        return any(self.user.runs.glob("*/events.jsonl"))

    def workers(self) -> list[psutil.Process]:
        """The processes that work on a stage of the sweep now."""
        launchers = {process.pid for process in self.user.launches}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # A local worker names the folder in no argument, only in where it is.
                known = [process.cwd(), *process.cmdline()]
                if process.pid not in launchers and any(str(self.user.folder) in word for word in known):
                    found.append(process)
        return found

    def kill_everything(self) -> None:
        """The machine dies: launchers and workers."""
        for process in self.user.launches:
            process.kill()
        while found := self.workers():
            for worker in found:
                with suppress(psutil.Error):
                    worker.kill()
            psutil.wait_procs(found, 5)

    def done(self) -> bool:
        """Whether all stages are."""
        planned = (self.user.runs / "sweeps" / "own.json").exists()
        return planned and all(self._state(stage) == "done" for stage in self.user.stages())

    def _state(self, stage: object) -> str:
        try:
            return self.user.state(stage)  # type: ignore[arg-type]
        except Exception as error:  # a damaged outcome
            return str(error)

    def go_on(self) -> None:
        """As a user who looks after the sweep: where nothing runs, do what an error advises, and launch again."""
        if self.on != "slurm" and not all(process.poll() is not None for process in self.user.launches):
            return
        said = [self._said, *(process.communicate()[0] for process in self.user.launches[-1:])]
        if (self.user.runs / "sweeps" / "own.json").exists():
            for words in (("logs", "own", "--errors"), ("status", "own")):
                done = self.user.attempt(*words)
                said += [done.stdout, done.stderr]
        self._heed(re.sub(r"\s", "", "".join(said)))
        if self.on == "slurm":
            done = self.user.attempt("launch", "own.py", *self.user.by, *self.options)
            self._said = done.stdout + done.stderr
        else:
            self.launch()

    def _heed(self, said: str) -> None:
        """Do what errors advise, given without their spaces: remove what is damaged."""
        damaged = set(re.findall(DAMAGED, said))
        for listed in re.findall(INCOMPLETE, said):
            damaged |= set(listed.split(","))
        for key in damaged:
            shutil.rmtree(self.user.runs / key, ignore_errors=True)
        for name in set(re.findall(RECORD, said)):
            self.cluster().attempt(f"scancel --name={name}")
            shutil.rmtree(self.user.runs / "slurm" / name, ignore_errors=True)

    def finish(self) -> None:
        """Bring the sweep to its end. Raises AssertionError where it does not come there."""
        for _ in range(RESUMES):
            self.go_on()
            until(lambda: self.done() or self._all_ended(), seconds=120, alive=self.user._life)
            if self.done() and not (unreadable := self._unreadable()):
                break
            if self.done():
                self._heed(re.sub(r"\s", "", unreadable))
        else:
            raise AssertionError(f"not done after {RESUMES} launches: {self.user('status', 'own')}")
        self.user.nothing_runs()

    def _unreadable(self) -> str:
        """What whoever reads the finished weights next is told, where they are damaged."""
        said = []
        for stage in self.user.stages():
            saved = (read_outcome(self.user.runs / stage.key) or {}).get("checkpoint")
            try:
                if saved:
                    checkpoint.load(self.user.runs / stage.key / saved["file"], saved["sha256"])
            except SuiteError as error:
                said.append(str(error))
        return "\n".join(said)

    def _all_ended(self) -> bool:
        """Whether launchers and what they left behind have."""
        return self.user._all_ended() and not self.workers()

    def wrong(self, alone: Path) -> list[str]:
        """What differs from the undisturbed runs in `alone`, what MLflow lost or doubled, and what still runs."""
        found = []
        for stage in self.user.stages():
            names = [event["event"] for event in read_events(self.user.runs / stage.key)]
            failed = sum(
                pair == ("finished", "failed") for pair in pairwise(names)
            )  # the disk took no outcome
            if names.count("finished") - failed != 1:
                found.append(f"{stage.name} finished {names.count('finished')} times")
            found += verify_resume.compare(alone / stage.key, self.user.runs / stage.key)
        self.user("sync", "own")
        store = self.server or Embedded(self.user.runs)
        _, lost, doubled = difference(store, "own", self.user.runs, self.user.stages())
        if lost or doubled:
            found.append(f"MLflow lost {lost} and doubled {doubled} metrics")
        if left := self.workers():
            found.append(f"{len(left)} processes left: {left[0].cmdline()}")
        return found
