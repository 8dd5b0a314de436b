"""Graceful stop: signal handlers set a flag that the training loop checks between steps; a launcher that a signal
interrupts knows all that it has started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

REQUEUE = 75
"""Exit status of a run that was asked to stop and saved: start it again and it goes on (EX_TEMPFAIL of sysexits.h)."""

ASKING = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""What schedulers, launchers and people send. A second Ctrl-C ends at once."""


@dataclass
class Stop:
    """`asked_by` is the name of the signal that came, or nothing."""

    asked_by: str = ""
    process: int = field(default_factory=os.getpid)

    def listen(self) -> Stop:
        """Set the flag from now on; call it in the main thread. Forked processes that inherit this ignore them.

        Where another Stop has listened already, the signal that it noted counts: a process may listen from its first
        line on, before its imports, since a signal that comes meanwhile would kill it.
        """
        earlier = getattr(signal.getsignal(signal.SIGUSR2), "__self__", None)
        for number in ASKING:
            signal.signal(number, self._note_signal)
        if isinstance(earlier, Stop):
            self.asked_by = earlier.asked_by
        return self

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return
        if self.asked_by and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked_by = signal.Signals(number).name


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that would raise KeyboardInterrupt within do so at the end: between the start of a process and the note
    of it, an interrupt would leave a process behind that nobody ends."""
    if threading.current_thread() is not threading.main_thread():  # which no signal interrupts
        yield
        return
    every = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    handlers = {number: handler for number, handler in every.items() if callable(handler)}
    came: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)
