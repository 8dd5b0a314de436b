"""`suite cancel` ends the process of a stage, and no other that its lease names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from suite.launch import local_jobs
from suite.record import lease


def test_a_process_that_a_lease_names_is_that_of_the_stage_only_if_it_has_the_lock_open(
    tmp_path: Path,
) -> None:
    """Its number may be that of another process here: of a container, or forged."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with lease.lock(tmp_path):
            assert local_jobs.process_of(tmp_path) == os.getpid()
            for number in (1, other.pid, 2**22, 10**9):
                (tmp_path / "lease").write_text(f"process {number} on {os.uname().nodename}, 17")
                assert local_jobs.process_of(tmp_path) is None
    finally:
        other.kill()
        other.wait()
