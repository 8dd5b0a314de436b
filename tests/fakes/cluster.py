"""A real SLURM on this machine, and a user's place on it: a folder with a sweep, and the commands given there."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from fakes import ROOT
from fakes.user import OUTSIDE, User
from fakes.waiting import limit, slowness, until
from suite.launch import verify_resume
from suite.recipe import Stage
from suite.record.journal import read_events

CLUSTER = """
environment.SUITE_DEVICE = "cpu"
gpus_per_node = 4
cpus_per_rank = 1
memory_gb_per_rank = 4.0
minutes = 60
"""
COMMAND = ROOT / "slurm" / "local" / "cluster"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "slurmdbd", "munged", "mariadbd")
HELD_AT = 10
"""The step at which a training is held: one of those at which several ranks check whether they shall stop."""
CHANGED = """
import sys
from pathlib import Path
from slurm import sender
sender.ROOT = Path({code!r})
from suite.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""A command of the suite whose jobs run other code than its own."""
HOLD = """
import signal
from pathlib import Path
sound_fit = fit

def fit(*words):
    for step in sound_fit(*words):
        if step.total == {step}:
            Path({reached!r}).touch()
            while Path({hold!r}).exists() and not signal.getsignal(signal.SIGUSR2).__self__.asked_by:
                time.sleep(0.05)
        yield step
"""


class Cluster:
    """A cluster of its own in `folder`, driven as a user drives it: by its command and by SLURM's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = OUTSIDE | {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}

    def manage(self, command: str, *arguments: str) -> str:
        """What `slurm/local/cluster` says, on standard output and error, when it succeeds."""
        node, rest = (
            (arguments[:1], arguments[1:]) if command.startswith(("node", "slurmd")) else ((), arguments)
        )
        done = subprocess.run(
            [COMMAND, command, *node, str(self.folder), *rest],
            env=OUTSIDE | {"SLOWNESS": str(math.ceil(slowness()))},
            capture_output=True,
            text=True,
            timeout=limit(200),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def __call__(self, command: str, *arguments: str) -> str:
        """What one of SLURM's commands prints when it succeeds."""
        done = self.attempt(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def attempt(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [*shlex.split(command), *arguments]
        how = {"env": self.environment, "cwd": self.folder, "timeout": limit(60)}
        return subprocess.run(words, capture_output=True, text=True, **how)

    def submit(self, options: str, script: str) -> str:
        """The number of a job that runs `script`, and writes to NUMBER.out, or NUMBER_INDEX.out of an array."""
        output = "%A_%a.out" if "--array" in options else "%j.out"
        return self(f"sbatch --parsable --output={output} {options}", "--wrap", script)

    def output(self, job: str) -> str:
        file = self.folder / f"{job}.out"
        return file.read_text() if file.exists() else ""

    def state(self, job: str) -> str:
        return self(f"squeue --noheader --states=all --jobs={job} --format=%T")

    def recorded(self, job: str, field: str = "State") -> list[str]:
        """What accounting has, of each job of an array, and of each time that a job was started."""
        return self(
            f"sacct --duplicates --allocations --noheader --parsable2 --jobs={job} --format={field}"
        ).split("\n")

    def ends(self, job: str, *states: str) -> None:
        until(lambda: self.recorded(job) == list(states), lambda: f"{self.recorded(job)}, not {states}")

    def idle(self) -> bool:
        return self("sinfo --noheader --partition=main --format=%T") == "idle"

    def queue(self) -> str:
        return self("squeue --noheader --array")

    def empty(self) -> None:
        """Wait until no job waits, runs or ends."""
        until(lambda: not self.queue(), self.queue)

    def known(self, words: str) -> None:
        """Wait until what the controller would know after a crash, which it writes every 5 s, has these words."""
        until(lambda: words.encode() in (self.folder / "state" / "job_state").read_bytes())

    def lose(self, node: str) -> None:
        """Tell the controller that a node is lost, which it would notice in some 25 s."""
        self(f"scontrol update nodename={node} state=down reason=lost")

    def takes_up(self, node: str) -> None:
        """Start the slurmd of a node that was set down, and wait until jobs may come to it. It becomes idle by itself
        when it registers; SLURM then refuses to resume it."""
        self.manage("slurmd-start", node)

        def up() -> bool:
            self.attempt(f"scontrol update nodename={node} state=resume")
            return self(f"sinfo --noheader --nodes={node} --partition=main --format=%T") in ("idle", "mixed")

        until(up)

    def clear(self) -> None:
        """End what a test left, and bring the nodes back that it lost."""

        def emptied() -> (
            bool
        ):  # a job that asked to be queued again while it was cancelled is cancelled again
            if self.queue():
                self.attempt("scancel --user=root")
            return not self.queue()

        until(emptied, self.queue, every=0.5)
        for line in self("sinfo --noheader --Node --partition=main", "--format=%N %T").splitlines():
            node, state = line.split()
            if state.startswith(("down", "drain")):
                for command in ("node-start", "slurmd-start"):  # whichever of the two it lacks
                    subprocess.run([COMMAND, command, node, self.folder], env=OUTSIDE, capture_output=True)
                self.attempt(f"scontrol update nodename={node} state=resume")
        until(self.idle, lambda: self("sinfo"))


def nodes_at_work(cluster: Cluster) -> list[str]:
    """The nodes that run jobs now."""
    return sorted(set(cluster("squeue --noheader --array --states=running --format=%N").split()))


def traces(folder: Path) -> list[str]:
    """The processes that know of a folder and the mounts in it."""
    found = [str(disk) for disk in psutil.disk_partitions(all=True) if str(folder) in disk.mountpoint]
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            words = [*process.cmdline(), *process.environ().values()]
            if any(str(folder) in word for word in words):
                found.append(str(process))
    return found


class Place(User):
    """A user's folder with a cluster.toml too, whose sweeps go to a cluster."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        super().__init__(folder, "slurm")
        self.by = ("--on", "slurm", "--cluster", "cluster.toml")
        self.cluster = cluster
        self.program: str | None = None
        self.settings(CLUSTER)
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        self.environment = cluster.environment | self.environment | {"PATH": path}

    def settings(self, text: str) -> None:
        """Write another cluster.toml."""
        (self.folder / "cluster.toml").write_text(text)

    def launch(self, *words: str) -> str:
        return self("launch", "own.py", *self.by, *words)

    def launch_and_leave(self, *words: str) -> None:
        self.launch(*words)

    def resume_and_leave(self) -> None:
        self("resume", "own")

    def nothing_runs(self) -> None:
        self.cluster.empty()

    def process_of(self, stage: Stage, rank: int = 0) -> int:
        """The number on this machine, outside of the node, of a rank's process; of two on different nodes the
        younger."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended
                words = process.cmdline()
                if "slurm.worker" in words and any(word.startswith(f"{self.runs}/") for word in words):
                    found += [process.pid] * (process.environ().get("SLURM_PROCID") == str(rank))
        return max(found)

    def change(self, more: str) -> None:
        """Put `more` at the end of suite/run/training.py in the code that jobs sent later run."""
        code = self.folder / "changed"
        for name in ("suite", "slurm"):
            shutil.copytree(
                ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        training = code / "suite" / "run" / "training.py"
        training.write_text(training.read_text() + more)
        self.program = CHANGED.format(code=str(code))

    def attempt(self, *words: str, program: str | None = None) -> subprocess.CompletedProcess[str]:
        return super().attempt(*words, program=program or self.program)

    def hold(self) -> None:
        """Let trainings wait at the step HELD_AT until `release` or a signal."""
        (self.folder / "hold").touch()
        files = {"reached": str(self.folder / "reached"), "hold": str(self.folder / "hold")}
        self.change(HOLD.format(step=HELD_AT, **files))

    def is_held(self) -> bool:
        return (self.folder / "reached").exists()

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def in_queue(self, field: str) -> str:
        """What squeue has of the one job of this folder, such as its nodes (%N) or its number (%i)."""
        [record] = self.runs.glob("slurm/suite-*/array.json")
        return self.cluster(f"squeue --noheader --name={record.parent.name} --format={field}")

    def held(self, *words: str) -> tuple[Stage, Path]:
        """A training of 18 steps that waits in the middle of them, and its run directory."""
        self.hold()
        self.launch("--only", "train", "--epochs", "3", *words)
        self.until(self.is_held)
        return self.training()

    def ended(self, training: Stage, state: str = "done") -> list[dict[str, Any]]:
        """What its journal has when the training has come to `state`, and to no other for good."""
        self.comes_to(training, state)
        return read_events(self.runs / training.key)

    def causes(self) -> list[str]:
        """Why each attempt of the one job ended; empty of one that goes on or ended well."""
        from slurm.attempts import Task

        [record] = self.runs.glob("slurm/suite-*/array.json")
        return [attempt.cause for attempt in Task(record, 0, self.runs).attempts]

    def equals_one_left_alone(self, training: Stage, folder: Path) -> bool:
        """Whether its result is, bit for bit, that of a run that nobody interrupts."""
        from suite.ranks import Ranks
        from suite.record.files import Folders
        from suite.run.stage import run

        run(training, Ranks(), Folders(folder / "alone", folder / "data"))
        return verify_resume.compare(folder / "alone" / training.key, self.runs / training.key) == []

    def logs(self) -> str:
        return "\n".join(file.read_text()[-1500:] for file in self.runs.glob("slurm/suite-*/*.log"))

    def _why_not(self) -> str:
        return self.cluster.queue() + self("status", "own") + self.logs()

    def _all_ended(self) -> bool:
        return not self.cluster.queue()
