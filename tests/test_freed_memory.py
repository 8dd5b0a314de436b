"""A worker on a CPU uses the memory of freed tensors again."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
from fakes import ROOT

FREED = """
import resource, torch
from suite.ranks import from_environment

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(12_000_000)  # 48 MB, 11,719 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
from_environment(1)
faults()
print(before, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
@pytest.mark.parametrize("said", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_memory_of_freed_tensors_is_used_again_unless_the_environment_says_otherwise(
    said: dict[str, str],
) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    command = [sys.executable, "-c", FREED]
    found = subprocess.run(
        command, cwd=ROOT, env=environment | said, capture_output=True, text=True, check=True
    )
    before, after = map(int, found.stdout.split())
    assert (after < before / 10) == (not said)
