"""Each node's load stands beside the journal and in MLflow, under the names of MLflow's own system metrics."""

from __future__ import annotations

import platform
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import journals
from fakes.journals import write_run
from fakes.tracking import points, the_run
from fakes.waiting import limit
from mlflow.system_metrics.metrics import gpu_monitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.tracking import MlflowClient

from suite.ranks import Ranks
from suite.recipe import Training
from suite.record import jsonl, system_metrics
from suite.record.files import Folders
from suite.record.journal import Journal, read_events
from suite.record.lease import lock
from suite.run.stage import run
from suite.track import store, sync

STAGE = journals.stages(1)[0]


class NVMLError(Exception):
    pass


def gpus(count: int, power: bool = True) -> SimpleNamespace:
    """NVIDIA's library on a node of as many GPUs, of which MIG slices do not tell their power."""

    def limit(gpu: int) -> int:
        if not power:
            raise NVMLError
        return 700_000

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=10e9 * (gpu + 1), total=80e9),
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=90 + gpu),
        nvmlDeviceGetPowerUsage=lambda gpu: limit(gpu) // 2,
        nvmlDeviceGetEnforcedPowerLimit=limit,
    )


def sample(folder: Path, ranks: Ranks, seconds: float = 0.0) -> list[tuple[str, float, int, int]]:
    """What is read after a stage that took so long."""
    folder.mkdir(exist_ok=True)
    with system_metrics.sampled(Journal(folder, writes=ranks.writes), ranks):
        time.sleep(seconds)
    return system_metrics.read(folder, {})[0]


def test_a_run_that_ends_before_its_first_sample_is_due_leaves_one_and_no_event_more(
    tmp_path: Path, tiny_training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "EVERY_SECONDS", 1e6)
    run(tiny_training, Ranks(), Folders(tmp_path, tmp_path))
    folder = tmp_path / tiny_training.key
    found, reached = system_metrics.read(folder, {})
    assert {step for *_, step in found} == {0} and reached == {
        "system.jsonl": (folder / "system.jsonl").stat().st_size
    }
    journal = read_events(folder)
    assert journal[-1]["event"] == "finished"
    assert journal[0]["time"] * 1000 < found[0][2] + 1 < journal[-1]["time"] * 1000 + 2
    assert not [event for event in journal if "cpu" in str(event.get("values"))]


def test_names_units_and_values_are_those_of_mlflows_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", gpus(2))
    monkeypatch.setattr(gpu_monitor, "pynvml", gpus(2), raising=False)
    theirs = {}
    for monitor in (CPUMonitor(), gpu_monitor.GPUMonitor()):
        monitor.collect_metrics()
        theirs |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
    ours = {name: value for name, value, *_ in sample(tmp_path, Ranks())}
    assert ours.keys() == theirs.keys() and len(ours) == 3 + 2 * 5
    of_gpus = {name for name in ours if "gpu" in name}
    assert {name: ours[name] for name in of_gpus} == {name: theirs[name] for name in of_gpus}
    for name in ("system/system_memory_usage_megabytes", "system/system_memory_usage_percentage"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.2)
    assert 0 <= ours["system/cpu_utilization_percentage"] <= 100


def test_a_gpu_that_does_not_tell_all_tells_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", gpus(1, power=False))
    found = {name for name, *_ in sample(tmp_path, Ranks())}
    assert "system/gpu_0_utilization_percentage" in found and "system/gpu_0_memory_usage_megabytes" in found
    assert not [name for name in found if "power" in name]


def test_the_first_rank_of_each_of_several_nodes_samples_its_node_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(4):
        monkeypatch.setattr(platform, "node", lambda rank=rank: f"n{rank // 2}")
        sample(tmp_path, Ranks(rank, local_rank=rank % 2, world_size=4, nodes=2))
    assert sorted(file.name for file in tmp_path.glob("system*")) == ["system-n0.jsonl", "system-n1.jsonl"]
    found = system_metrics.read(tmp_path, {})[0]
    assert [name for name, *_ in found if "cpu" in name] == [
        "system/n0/cpu_utilization_percentage",
        "system/n1/cpu_utilization_percentage",
    ]


def test_samples_go_on_counting_over_attempts_and_end_where_the_run_was_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "EVERY_SECONDS", 0.05)
    first = {step for *_, step in sample(tmp_path, Ranks(), 0.3)}
    both = {step for *_, step in sample(tmp_path, Ranks(), 0.3)}
    assert len(both) > len(first) > 2 and both == set(range(len(both)))
    with lock(tmp_path) as lease, system_metrics.sampled(Journal(tmp_path, lease=lease), Ranks()):
        (tmp_path / "lease").write_text("somebody else")
        time.sleep(0.2)
    assert {step for *_, step in system_metrics.read(tmp_path, {})[0]} == both


@pytest.mark.parametrize("broken", ["raises", "hangs", "disk"])
def test_whatever_goes_wrong_with_samples_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(system_metrics, "PATIENCE_SECONDS", 0.2)
    never = threading.Event()

    def fail(gpus: Any) -> dict[str, float]:
        if broken == "hangs":
            never.wait()
        raise RuntimeError("the driver is gone")

    if broken == "disk":
        (tmp_path / "system.jsonl").mkdir()
    else:
        monkeypatch.setattr(system_metrics, "_busy", fail)
    began = time.monotonic()
    assert sample(tmp_path, Ranks()) == []
    assert time.monotonic() - began < limit(2)
    never.set()


def test_a_sync_takes_each_sample_once_with_its_time_and_a_hostile_one_never(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(database)
    folder, name = tmp_path / STAGE.key, "cpu_utilization_percentage"
    write_run(tmp_path, STAGE)
    good = [{"time": 1e9 + step, "step": step, "values": {name: 5.0 + step}} for step in range(3)]
    evil: list[Any] = [
        {"time": 1e9, "step": 1, "values": {"../x": 1}},
        {"time": "1", "step": 1, "values": {name: 1}},
        {"time": 1e9, "step": -1, "values": {name: 1}},
        {"time": 1e9, "step": 1, "values": {name: "1"}},
        {"time": 1e9, "step": 1, "values": [1]},
        {"time": float("nan"), "step": 1, "values": {}},
        {"values": {name: 1}},
    ]
    (folder / "system-link.jsonl").symlink_to(folder / "system.jsonl")
    (folder / "system-a b.jsonl").write_text(jsonl.sealed(good[0]))
    seen = []
    with (folder / "system.jsonl").open("a") as stream:
        for record in [good[0], *evil, good[1], good[2]]:
            line = jsonl.sealed(record)
            for part in (line[:30], line[30:]):  # a sync may come in the middle of a line
                stream.write(part)
                stream.flush()
                sync.sync("demo", [STAGE], tmp_path)
            found = points(store.uri(tmp_path), the_run(tmp_path, STAGE))
            seen.append(sum(point[0].startswith("system/") for point in found))
    assert seen == [1] * 8 + [2, 3]
    assert [point for point in found if point[0].startswith("system/")] == [
        (f"system/{name}", step, 5.0 + step, 10**12 + 1000 * step) for step in range(3)
    ]
    assert len(found) == 3 + journals.EPOCHS * 7
    assert (
        MlflowClient(store.uri(tmp_path)).get_run(the_run(tmp_path, STAGE).info.run_id).data.metrics["top1"]
    )


def test_only_the_gpus_a_process_may_use_are_sampled_and_one_that_is_refused_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def by_index(number: int) -> str:
        if number == 1:
            raise RuntimeError("NVML_ERROR_NO_PERMISSION")
        return f"gpu {number}"

    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 4,
        nvmlDeviceGetHandleByIndex=by_index,
        nvmlDeviceGetHandleByUUID=lambda name: f"gpu of {name}",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert system_metrics._gpus(None) == ["gpu 0", "gpu 2", "gpu 3"]
    assert system_metrics._gpus("3, 0") == ["gpu 3", "gpu 0"]
    assert system_metrics._gpus("GPU-5a") == ["gpu of GPU-5a"]
    assert system_metrics._gpus("") == []
