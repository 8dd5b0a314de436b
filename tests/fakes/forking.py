"""Processes without their imports: each is a fork of one that has imported torch, MLflow and the suite.

A command that a user gives starts Python and imports torch, which takes a busy machine longer than what it then does.
What is forked is as fresh: its folder, environment, output and modules are its own. So is what a launch starts. From
nothing start the commands of tests/cli/test_console_script.py, the jobs of SLURM, and all of a campaign.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fakes.starting import Signalled, Starter

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(
    [
        "torch",
        "torch._dynamo",  # which torch imports, in seconds, when it makes an optimizer
        "torch.distributed.run",
        "sklearn.datasets",
        "pytest",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.tracking",
        "slurm.sender",
        "suite.cli.launching",
        "suite.cli.main",
        "suite.cli.running",
        "suite.launch.local",
        "suite.methods.qat_symmetric",
        "suite.run.stage",
        "suite.track.sync",
    ]
)
FROM_NOTHING = "SUITE_TEST_FROM_NOTHING"
"""With this in its environment a launch starts its jobs by their commands, by which psutil then finds them."""
_NUMBERS = count()


@atexit.register
def _end_what_failed_tests_left() -> None:
    """Before multiprocessing waits for it."""
    for process in multiprocessing.active_children():
        process.kill()


class Forked(Signalled):
    """A process that a test starts, used as a subprocess.Popen: a command of the suite, or a `program` with its words
    as sys.argv[1:]. It leads a process group. Its output goes to a file, with `err` to two, in `folder`."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        program: str | None = None,
        err: bool = False,
    ) -> None:
        number = next(_NUMBERS)
        self.args = ["suite", *words]
        self._out = folder / f"said-{number}.out"
        self._err = folder / f"said-{number}.err" if err else None
        order = (list(words), folder, dict(environment), program, self._out, self._err)
        self._process = forked.Process(target=_obey, args=order)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote when it has ended, and by itself what it wrote to standard error, where that is apart."""
        self.wait(timeout)
        said = [file.read_text() if file and file.exists() else "" for file in (self._out, self._err)]
        return said[0], said[1]


def completed(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    seconds: float,
    program: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """What `python -m suite WORDS`, or the `program` with these words, does in `folder`; killed after `seconds`."""
    process = Forked(words, folder, environment, program, err=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    return subprocess.CompletedProcess(process.args, status, *process.communicate())


def _obey(
    words: list[str],
    folder: Path,
    environment: dict[str, str],
    program: str | None,
    out: Path,
    err: Path | None,
) -> None:
    """Be the process of a command, and end."""
    os.setsid()
    os.chdir(folder)
    for number, file in ((0, Path(os.devnull)), (1, out), (2, err)):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND) if file else os.dup(1)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["suite", *words]
    _end_with(environment, lambda: _done(words, program))


def _become(words: list[str], environment: Mapping[str, str]) -> None:
    """Be the process of `python -m MODULE ...`, and end: a job of a launcher, torchrun, or a rank of that."""
    module, *rest = words[words.index("-m") + 1 :]
    sys.argv = [module, *rest]

    def done() -> int:
        if module == "suite":
            return _done(rest, None)
        assert module == "torch.distributed.run"
        from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
        from torch.distributed.run import main

        subprocess_handler.Popen = Starter(_become)  # type: ignore[attr-defined]
        main(rest)
        return 0

    _end_with(environment, done)


def _end_with(environment: Mapping[str, str], done: Callable[[], int]) -> None:
    """End with the status of `done`, in this environment."""
    signal.pthread_sigmask(
        signal.SIG_SETMASK, ()
    )  # a server that data workers had started blocks what asks to stop
    os.environ.clear()
    os.environ.update(environment)
    status: Any = 1
    try:
        status = done()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _done(words: list[str], program: str | None) -> int:
    import torch

    torch.set_num_threads(1)
    if program:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
        return 0
    from suite.cli.main import main
    from suite.launch import local

    if words[0] in ("launch", "resume", "explain") and FROM_NOTHING not in os.environ:
        held: Any = SimpleNamespace(Popen=Starter(_become), DEVNULL=subprocess.DEVNULL)
        local.subprocess = held
    return main(words)
