"""What a launcher or torchrun starts, without its imports: each process is a fork of the one that starts it, as that
was before it did anything.

Stands in the place of subprocess.Popen: number, exit status, signals, session and output are those of the process
itself, which lives on where the launcher is killed. It is no child of the launcher but of a server beside it, which
has no threads, so that nothing is locked in what it forks.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LARGEST = 1 << 17
"""Bytes of a message: the words and the environment of a process."""
EVERY_SECONDS = 0.05
"""Between two looks for processes that have ended."""

Words = list[str]


class Starter:
    """Calls `become(words)` in each process; it never returns."""

    def __init__(self, become: Callable[[Words, Mapping[str, str]], None]) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ended: dict[int, int] = {}
        if not os.fork():
            self.socket.close()
            _serve(theirs, become)
        theirs.close()

    def __call__(
        self, args: Sequence[str], env: Mapping[str, str], stdout: Any = None, stderr: Any = None, **_: object
    ) -> Started:
        """As subprocess.Popen; the process always reads nothing and leads a session."""
        files = [file.fileno() if file else usual for file, usual in ((stdout, 1), (stderr, 2))]
        socket.send_fds(self.socket, [pickle.dumps((list(args), dict(env)))], files)
        while (found := self.hear(None)) is None or found[1] is not None:
            pass
        return Started(self, found[0], list(args))

    def hear(self, seconds: float | None) -> tuple[int, int | None] | None:
        """The next message, a process that has begun (None) or ended with a status; None after so many seconds."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        number, status = pickle.loads(self.socket.recv(LARGEST))
        if status is not None:
            self.ended[number] = status
        return number, status


class Signalled:
    """What of a subprocess.Popen sends signals, for a process with a `pid` and `poll`."""

    pid: int

    def poll(self) -> int | None:
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Started(Signalled):
    """A process of a Starter, used as a subprocess.Popen."""

    def __init__(self, starter: Starter, pid: int, args: Words) -> None:
        self.starter, self.pid, self.args = starter, pid, args

    @property
    def returncode(self) -> int | None:
        return self.starter.ended.get(self.pid)

    def poll(self) -> int | None:
        while self.returncode is None and self.starter.hear(0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.starter.hear(left)
        return self.returncode


def _serve(asked: socket.socket, become: Callable[[Words, Mapping[str, str]], None]) -> None:
    """Start what is asked for and report what has ended, until the one that asks is gone."""
    os.setsid()
    try:
        while True:
            if select.select([asked], [], [], EVERY_SECONDS)[0]:
                message, files, *_ = socket.recv_fds(asked, LARGEST, 2)
                if not message:
                    break
                number = os.fork()
                if not number:
                    asked.close()
                    os.setsid()
                    _connect(files)
                    become(*pickle.loads(message))
                for file in files:
                    os.close(file)
                asked.send(pickle.dumps((number, None)))
            while (ended := _ended()) is not None:
                asked.send(pickle.dumps(ended))
    except OSError:
        pass
    os._exit(0)


def _ended() -> tuple[int, int] | None:
    """A process that has ended, with its status; None where there is none."""
    try:
        number, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (number, os.waitstatus_to_exitcode(status)) if number else None


def _connect(files: Sequence[int]) -> None:
    """Nothing to standard input, these files to output and error."""
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), *files)):
        os.dup2(file, number)
        os.close(file)
