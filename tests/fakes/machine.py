"""The machine that a campaign's processes see: its clock steps, its disk is slow, its network drops packets.

Clock and disk are those of the processes into which `machine.c` is preloaded; the machine itself keeps its own. The
network is one of the kernel's, without a cable, which the campaign and all that it starts have for themselves.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path

SOURCE = Path(__file__).with_name("machine.c")
NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of unshare(2)."""
AHEAD, SLOW, READ_ONLY = 0, 8, 16
"""Where each number lies in the file that all processes read."""


class Machine:
    """The clock and the disks of the processes that have `environment`. Needs a C compiler, `cc`."""

    def __init__(self, folder: Path) -> None:
        file, library = folder / "machine", folder / "machine.so"
        file.write_bytes(bytes(24))
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        with file.open("r+b") as stream:
            self._content = mmap.mmap(stream.fileno(), 24)
        self.environment = {"LD_PRELOAD": str(library), "SUITE_TEST_MACHINE": str(file)}

    def start_forkserver(self) -> None:
        """Preload it into what is forked, too: commands have it from their first line on."""
        os.environ |= self.environment
        try:
            forkserver.ensure_running()
        finally:
            for name in self.environment:
                del os.environ[name]

    def _set(self, place: int, value: int) -> None:
        struct.pack_into("q", self._content, place, value)

    def sound(self) -> None:
        """Nothing is wrong with it any more."""
        self._content[:] = bytes(24)

    def step_clock(self, seconds: int) -> None:
        """Let the clock be so many seconds before (below 0) or after the right time, from now on."""
        self._set(AHEAD, seconds)

    @contextmanager
    def slow_disk(self, seconds: float) -> Iterator[None]:
        """Each write to a file, and each fsync, takes so much longer."""
        self._set(SLOW, int(1e6 * seconds))
        try:
            yield
        finally:
            self._set(SLOW, 0)

    @contextmanager
    def read_only(self, disk: Path) -> Iterator[None]:
        """Nothing can be written to a disk, whose mount point is given, nor to the files of it that are open."""
        subprocess.run(["mount", "--bind", disk, disk], check=True)
        try:
            self._set(READ_ONLY, disk.stat().st_dev)
            subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
            yield
        finally:
            self._set(READ_ONLY, 0)
            subprocess.run(["umount", "--lazy", disk], check=True)


class Network:
    """The network of this process and of all that it starts from now on: loopback alone, whose packets it can drop.

    Raises OSError where that needs more rights than this process has.
    """

    def __init__(self) -> None:
        if os.geteuid() or not shutil.which("ip"):
            raise PermissionError("a network of its own needs root, and the command ip")
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "unshare")
        _ip("link", "set", "lo", "up")
        _ip(
            "address", "add", "192.0.2.1/32", "dev", "lo"
        )  # with 127.0.0.1 alone, SLURM's getaddrinfo finds no family
        self.families = ["-4", "-6"] if Path("/proc/net/if_inet6").exists() else ["-4"]
        for family in self.families:  # what is local is asked after the rules of `dropping`, not before
            _ip(family, "rule", "add", "pref", "100", "lookup", "local")
            _ip(family, "rule", "del", "pref", "0")

    @contextmanager
    def dropping(self, *which: str) -> Iterator[None]:
        """No packet arrives of those that a rule of ip's selects: `ipproto tcp dport 5000`, or all."""
        for family in self.families:
            _ip(family, "rule", "add", "pref", "50", *which, "blackhole")
        try:
            yield
        finally:
            for family in self.families:
                _ip(family, "rule", "del", "pref", "50")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
