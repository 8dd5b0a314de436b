"""Ranks of this machine that run one script, forked and without torchrun, whose start alone takes seconds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fakes import ROOT
from fakes.forking import Forked
from fakes.waiting import limit


def together(world_size: int, script: str, folder: Path, *words: str) -> list[str]:
    """What each of so many ranks said that ran `script` in `folder`; all must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    running = [
        Forked(words, folder, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, program=script)
        for rank in range(world_size)
    ]
    said = [process.communicate(timeout=limit(300))[0] for process in running]
    assert [process.returncode for process in running] == [0] * world_size, "\n".join(said)[-3000:]
    return said
