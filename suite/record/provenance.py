"""Where a result comes from: the code's commit and changes, the versions, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.recipe.errors import SuiteError
from suite.recipe.words import counted
from suite.record.files import read_object
from suite.record.waiting import announced

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")
ROOT = Path(__file__).parent.parent.parent
COPIED = "commit.json"
"""The file in a copy of the code that says what `commit_and_diff` said when it was made."""
LARGEST_DIFF = 200_000
GIT_SECONDS = 30.0
"""How long git may take to say what the code is: on a disk that hangs it never does."""


@cache
def provenance(device: torch.device) -> dict[str, Any]:
    """commit, dirty, diff (cut at 200,000 characters), versions, device, and host, as plain data."""
    import torch

    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{_cpu()}, {_threads()}"
    return {
        **commit_and_diff(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": name,
        "cpu_flags": list(cpu_flags()),
        "host": platform.node(),
        "pid": os.getpid(),
        **({"gpu": _gpu()} if on_gpu else {}),
    }


def _gpu() -> dict[str, Any]:
    """What decides a GPU's bits besides its name: the versions below torch, how many there are, whether float32 is
    TF32."""
    import torch

    found: dict[str, Any] = {"cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}
    found |= {"cudnn": torch.backends.cudnn.version(), "tf32": torch.backends.cudnn.allow_tf32}  # type: ignore[no-untyped-call]
    with suppress(Exception):
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    with suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        found["driver"] = pynvml.nvmlSystemGetDriverVersion()
    return found


def commit_and_diff() -> dict[str, Any]:
    """commit, dirty and diff of the code: of git or, in a copy that was made for jobs, of git then (`of_copy`)."""
    if (copied := ROOT / COPIED).exists():
        return of_copy(copied)
    deadline = time.monotonic() + GIT_SECONDS
    with announced(f"git says what the code in {ROOT} is", GIT_SECONDS, ends=False):
        commit = _git("rev-parse", "HEAD", deadline=deadline).strip() or "unknown"
        diff = _git("diff", "HEAD", "--", "suite", deadline=deadline) + _untracked(deadline)
    return {"commit": commit, "dirty": bool(diff), "diff": diff[:LARGEST_DIFF]}


def of_copy(file: Path) -> dict[str, Any]:
    """What COPIED of a copy of the code says: commit, dirty and diff. Raises SuiteError where it is damaged."""
    if (content := read_object(file)).keys() != {"commit", "dirty", "diff"}:
        raise SuiteError(f"{file} of the copy of the code is damaged; launch again, which makes it anew")
    return content


def is_committed(file: Path) -> bool:
    """Whether git has a file of the code just as it is now; never where there is no git to ask."""
    path, deadline = str(file.resolve()), time.monotonic() + GIT_SECONDS
    with announced(f"git says whether {path} is committed", GIT_SECONDS, ends=False):
        known = _git("ls-files", "--", path, deadline=deadline)
        return bool(known) and _git("status", "--porcelain", "--", path, deadline=deadline, failed="?") == ""


def _untracked(deadline: float) -> str:
    """The text of files that git does not know yet: a method somebody has just written."""
    names = _git("ls-files", "--others", "--exclude-standard", "--", "suite", deadline=deadline)
    return "".join(f"+++ {name}\n{(ROOT / name).read_text(errors='replace')}" for name in names.splitlines())


def _git(*words: str, deadline: float, failed: str = "") -> str:
    """What git says until `deadline`, by time.monotonic(); `failed` where it says nothing."""
    left = deadline - time.monotonic()
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=max(0, left))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return failed
    return done.stdout if done.returncode == 0 else failed


def _version(package: str) -> str:
    from importlib import metadata  # here, because `suite status` is faster without

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _threads() -> str:
    import torch

    return counted(torch.get_num_threads(), "thread")


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


INTEGER_FLAGS = (
    "avx2",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "avx512_bf16",
    "amx_bf16",
    "asimddp",
)
"""Of a processor, those that decide which kernels of integers and of bfloat16 run."""


@cache
def cpu_flags() -> tuple[str, ...]:
    """Those of INTEGER_FLAGS that this processor has; none where the system does not say."""
    found = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return tuple(flag for flag in INTEGER_FLAGS if flag in found)


def _cpuinfo(name: str) -> str:
    """What Linux says of the first core; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
