"""Ranks of this machine that run one script, forked and without torchrun, whose start alone takes seconds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fakes import ROOT
from fakes.forking import Forked
from fakes.waiting import limit


def meeting(world_size: int) -> list[dict[str, str]]:
    """The environment by which each of so many ranks finds the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    shared["CUDA_VISIBLE_DEVICES"] = ""  # NCCL refuses two ranks on one GPU
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]


def together(world_size: int, script: str, folder: Path, *words: str) -> list[str]:
    """What each of so many ranks said that ran `script` in `folder`; all must end well."""
    shared = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [Forked(words, folder, shared | one, program=script) for one in meeting(world_size)]
    said = [process.communicate(timeout=limit(300))[0] for process in running]
    assert [process.returncode for process in running] == [0] * world_size, "\n".join(said)[-3000:]
    return said
