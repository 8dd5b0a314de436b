"""The environment of a worker that `suite` starts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from suite.record.provenance import ROOT

OF_OTHER_LAUNCHERS = re.compile(
    "(LOCAL_|GROUP_|NODE_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(PET|TORCHELASTIC)_.*"
)
"""What torchrun, Kubeflow and others set for the processes that they start, and torchrun takes for its options: left
in a shell or a container, it is of another job."""


def worker_environment() -> dict[str, str]:
    """This process's, with the same code: a folder that holds a `suite` or `slurm` of somebody else may be the working
    folder, which Python would search first. Without what another launcher left."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    kept = {name: value for name, value in os.environ.items() if not OF_OTHER_LAUNCHERS.fullmatch(name)}
    return {**kept, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def gpu_names(count: int) -> list[str]:
    """What CUDA calls the `count` GPUs that this process sees: as CUDA_VISIBLE_DEVICES has them, numbers, UUIDs or
    names of MIG instances, of which CUDA takes none after one that is not there; without, their numbers. ROCm takes
    HIP_VISIBLE_DEVICES before it."""
    visible = os.environ.get("HIP_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES", "")
    given = [name.strip() for name in visible.split(",")]
    return [name for name in given if name][:count] or [str(number) for number in range(count)]


def only_gpus(names: Sequence[str]) -> dict[str, str]:
    """The variables with which a worker sees these GPUs alone, and does not compute on its CPU where it sees none."""
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(names), "SUITE_DEVICE": "cuda"}
    return visible | ({"HIP_VISIBLE_DEVICES": ",".join(names)} if "HIP_VISIBLE_DEVICES" in os.environ else {})
