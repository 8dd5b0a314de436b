"""How busy the machine is while a stage runs: a process of each node samples it every few seconds, into its own file.

Beside the journal and not in it: what happened to a run stays its last event, and other nodes cannot write there.
Names and units are those of MLflow's own system metrics, so that its page shows them; where a run has several nodes,
each one's name precedes them, as MLflow has it.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.record import jsonl
from suite.record.events import LATEST, MOST_COUNTED, is_number
from suite.record.files import open_to_append
from suite.record.journal import Journal

if TYPE_CHECKING:
    from suite.ranks import Ranks

EVERY_SECONDS = 10.0
"""Between two samples; the last is taken when the stage ends."""

PATIENCE_SECONDS = 5.0
"""How long a run that ends waits for that one: a broken GPU may never answer."""


@contextmanager
def sampled(journal: Journal, ranks: Ranks) -> Iterator[None]:
    """While this lasts, the first rank of each node samples it. Whatever goes wrong there costs samples alone."""
    ended = threading.Event()
    node = f"-{platform.node()}" if ranks.nodes > 1 else ""
    given = (journal, journal.folder / f"system{node}.jsonl", ended)
    sampling = threading.Thread(target=_sample, args=given, daemon=True)
    if ranks.local_rank == 0:
        with suppress(RuntimeError):  # there may be no memory for a thread
            sampling.start()
    try:
        yield
    finally:
        ended.set()
        if sampling.is_alive():
            sampling.join(PATIENCE_SECONDS)


def _sample(journal: Journal, file: Path, ended: threading.Event) -> None:
    with suppress(Exception):
        import psutil

        psutil.cpu_percent()  # each call measures the time since the last
        gpus, step = _gpus(os.environ.get("CUDA_VISIBLE_DEVICES")), _samples(file)
        last = False
        while not last:
            last = ended.wait(EVERY_SECONDS)
            values = {k: round(v, 1) for k, v in _busy(gpus).items()}
            if journal.replaced:
                return
            line = jsonl.sealed({"time": time.time(), "step": step, "values": values})
            with suppress(OSError), open_to_append(file) as stream:
                stream.write(line.encode())
                step += 1


def _samples(file: Path) -> int:
    """How many an earlier attempt left."""
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _gpus(visible: str | None) -> list[Any]:
    """NVIDIA's handles of the GPUs of this node that this process may use; none where there is no driver.

    visible: CUDA_VISIBLE_DEVICES, numbers or UUIDs; None where all are. One that NVML refuses is left out.
    """
    gpus: list[Any] = []
    with suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        chosen = map(str, range(pynvml.nvmlDeviceGetCount())) if visible is None else visible.split(",")
        for name in filter(None, (name.strip() for name in chosen)):
            with suppress(Exception):
                by_number = name.isdigit()
                find = pynvml.nvmlDeviceGetHandleByIndex if by_number else pynvml.nvmlDeviceGetHandleByUUID
                gpus.append(find(int(name) if by_number else name))
    return gpus


def _busy(gpus: Sequence[Any]) -> dict[str, float]:
    import psutil

    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.used / memory.total * 100,
    }
    for number, gpu in enumerate(gpus):
        values |= {f"gpu_{number}_{name}": value for name, value in _load_of(gpu).items()}
    return values


def _load_of(gpu: Any) -> dict[str, float]:
    """What a GPU reports of itself: not each reports everything."""
    import pynvml

    values: dict[str, float] = {}
    with suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        values["memory_usage_megabytes"] = memory.used / 1e6
        values["memory_usage_percentage"] = memory.used / memory.total * 100
    with suppress(pynvml.NVMLError):
        values["utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
    with suppress(pynvml.NVMLError):
        milliwatts = pynvml.nvmlDeviceGetPowerUsage(gpu)
        values["power_usage_watts"] = milliwatts / 1000
        values["power_usage_percentage"] = milliwatts / pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) * 100
    return values


def read(folder: Path, after: Mapping[str, int]) -> tuple[list[tuple[str, float, int, int]], dict[str, int]]:
    """The samples of a run as (metric, value, milliseconds since 1970, number of the sample), from byte `after` of
    each file on; and how far each file was read."""
    points, reached = [], dict(after)
    for file in sorted(folder.glob("system*.jsonl")):
        found = re.fullmatch(r"system(?:-([\w.-]{1,64}))?\.jsonl", file.name)
        if not found or not file.is_file() or file.is_symlink():
            continue
        with file.open("rb") as stream:
            stream.seek(after.get(file.name, 0))
            whole = stream.read().rpartition(b"\n")
        reached[file.name] = after.get(file.name, 0) + len(whole[0]) + len(whole[1])
        prefix = f"system/{found[1]}/" if found[1] else "system/"
        for record in jsonl.opened(whole[0] + whole[1]):
            if _is_sample(record):
                at = int(record["time"] * 1000), record["step"]
                points += [(f"{prefix}{name}", value, *at) for name, value in record["values"].items()]
    return points, reached


def _is_sample(record: Any) -> bool:
    try:
        when, step, values = record["time"], record["step"], record["values"].items()
        known = all(re.fullmatch("[a-z0-9_]{1,64}", name) and is_number(value) for name, value in values)
        return known and 0 <= when < LATEST and type(step) is int and 0 <= step < MOST_COUNTED
    except (TypeError, KeyError, AttributeError):
        return False
