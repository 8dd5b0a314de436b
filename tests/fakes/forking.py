"""The suite's commands without its imports: one process that has done them forks itself for each command.

A command that a user gives starts Python and imports torch, which takes a busy machine longer than what it then does.
What is forked is as fresh: its folder, environment, output and modules are its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any


class Forker:
    """Runs commands one after another, each in a fork of a process that has imported the suite."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @cached_property
    def _process(self) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, __file__], env=self._environment, text=True, **pipes)

    def __call__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        seconds: float,
        program: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """What `python -m suite WORDS`, or the `program` with these words, does in `folder`."""
        assert self._process.stdin and self._process.stdout
        said = folder / "said.out", folder / "said.err"
        order = {"words": words, "folder": folder, "environment": environment, "seconds": seconds}
        order |= {"program": program, "out": said[0], "err": said[1]}
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        out, err = (file.read_text() for file in said)
        for file in said:
            file.unlink()
        return subprocess.CompletedProcess(["suite", *words], status, out, err)

    def close(self) -> None:
        """End it, if it was ever needed."""
        if "_process" not in vars(self):
            return
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve() -> None:
    import torch

    import suite.cli.launching
    import suite.cli.main
    import suite.cli.running
    import suite.launch.local  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            _obey(order)
        print(_ended(child, order["seconds"]), flush=True)


def _ended(child: int, seconds: float) -> int:
    """The exit status of a command; -9 of one that took longer."""
    deadline = time.monotonic() + seconds
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            deadline += 60
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


def _obey(order: dict[str, Any]) -> None:
    """Be the process of a command, and end."""
    os.setsid()
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for number, file in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["suite", *order["words"]]
    status: Any = 1
    try:
        if order["program"]:
            exec(order["program"], {"__name__": "__main__"})
            status = 0
        else:
            from suite.cli.main import main

            status = main(order["words"])
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    _serve()
