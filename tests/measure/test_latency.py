"""How long exported networks take: interleaved, with their answers, machine and intervals recorded."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.exported import Finished
from fakes.missing import missing
from hypothesis import given
from hypothesis import strategies as st

from suite.cli.main import main
from suite.export import runtimes
from suite.export.runtimes import Engine, Exported
from suite.formats.rebuild import rebuilt
from suite.integers.everywhere import integer_everywhere
from suite.measure import timing
from suite.measure.latency import Asked, made, timed, usable_runtimes
from suite.measure.timing import disturbed, median_interval
from suite.methods.adaround import Adaround
from suite.methods.mse import Mse
from suite.recipe import Calibration
from suite.recipe.errors import SuiteError


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=40))
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    median, low, high = median_interval(values)
    assert min(values) <= low <= median <= high <= max(values)


def test_the_interval_holds_the_true_median_in_95_percent_of_samples() -> None:
    generator = np.random.default_rng(0)
    for n in (7, 20, 101):
        held = [
            low <= 0 <= high
            for _, low, high in (median_interval(generator.normal(size=n)) for _ in range(1000))
        ]
        assert np.mean(held) > 0.935, n


def fake(run: Any, batch: int = 4, precision: Any = "float32") -> Engine:
    network = Exported("key", "name", torch.nn.Identity(), torch.zeros(2, 1, 1, 1), int8=False)
    return Engine(network, "onnxruntime", precision, batch, run)


def test_engines_take_turns_and_another_begins_each_round() -> None:
    called: list[int] = []
    engines = [fake(lambda x, number=number: called.append(number)) for number in range(3)]
    rows = timed(engines, np.zeros((4, 1, 1, 1), np.float32), 1e-9, lambda words: None)
    assert called[:6] == [0, 0, 1, 1, 2, 2]  # warming up
    assert called[6:15] == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert [row["rounds"] for row in rows] == [timing.LEAST_ROUNDS] * 3
    assert all(row["low_ms"] <= row["median_ms"] <= row["high_ms"] for row in rows)


def test_a_last_part_of_a_batch_is_filled_up() -> None:
    def run(x: Any) -> Any:
        assert len(x) == 4
        return np.eye(10, dtype=np.float32)[x[:, 0, 0, 0].astype(int)]

    images = torch.arange(10).float().reshape(10, 1, 1, 1)
    assert fake(run).answers(iter([images[:7], images[7:]]), 10).tolist() == list(range(10))


def test_a_record_that_other_processes_disturbed_says_so() -> None:
    row = {"median_ms": 10.0, "processor_ms": 9.5}
    assert disturbed([row], threads=1) == ""
    assert "computed 48% of the time" in disturbed([row], threads=2)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"batches": (0,)}, "--batch must be 1 or more"),
        ({"threads": 0}, "--threads must be 1 or more"),
        ({"images": 0}, "--images must be 1 or more"),
        ({"seconds": 0.0}, "--seconds must be above 0"),
        ({"runtimes": ("tflite",)}, "--runtimes 'tflite' is unknown"),
    ],
)
def test_what_cannot_be_measured_is_refused(asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(SuiteError, match=reason):
        Asked(**asked)


def test_a_runtime_that_is_not_installed_is_skipped_with_its_reason_unless_it_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"onnx", "onnxscript", "onnxruntime"}
    monkeypatch.setattr(runtimes.torch_ao, "why_not", lambda: "no quantized operators")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    usable, skipped = usable_runtimes(Asked())
    assert usable == ("onnxruntime",) and set(skipped) == {"openvino", "inductor", "torch_ao"}
    assert skipped["torch_ao"] == "no quantized operators"
    assert skipped["openvino"].endswith("-m pip install --editable '.[openvino]'")
    with pytest.raises(SuiteError, match="openvino: openvino is not installed"):
        usable_runtimes(Asked(runtimes=("openvino",)))
    there.clear()
    with pytest.raises(SuiteError, match="no runtime is installed"):
        usable_runtimes(Asked())
    monkeypatch.setattr(runtimes, "cpu_flags", lambda: ("avx2",))
    assert "no bfloat16 unit" in runtimes.why_no_precision("openvino", "bfloat16")
    assert "no bfloat16 kernels" in runtimes.why_no_precision("onnxruntime", "bfloat16")
    assert runtimes.why_no_precision("openvino", "int8") == ""


def test_the_command_measures_a_recipe_and_its_float_network_and_records_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := runtimes.why_not("onnxruntime"):
        missing(reason)
    finished = Finished(tmp_path)
    recipe = finished.recipe(Mse(8, 8, feed=Calibration(images=64, batch=64)))
    words = ["--runs", str(finished.folders.runs), "--data", str(finished.folders.data), "--batch", "8"]
    words += ["--seconds", "0.001", "--images", "50", "--runtimes", "onnxruntime"]
    assert main(["latency", recipe.key, *words]) == 0
    said = capsys.readouterr().out
    (file,) = (finished.folders.runs / "latency").glob("*.json")
    assert str(file) in said and "x float32" in said and "1 thread a runtime" in said
    record = json.loads(file.read_text())
    found = {(row["key"], row["precision"], row["batch"]): row for row in record["rows"]}
    float_key = finished.start.key
    assert set(found) == {(float_key, "float32", 8), (recipe.key, "int8", 8)}
    for row in found.values():
        correct = np.unpackbits(np.frombuffer(base64.b64decode(row["correct"]), np.uint8))[:50]
        assert row["top1"] == 100 * correct.mean() and row["images"] == 50
        assert row["rounds"] >= timing.LEAST_ROUNDS and row["processor_ms"] > 0
    assert found[recipe.key, "int8", 8]["kernels"]["QLinearConv"] == 4
    assert record["skipped"] == {"onnxruntime bfloat16": "it has no bfloat16 kernels for CPUs"}
    assert {"cpu_flags", "device", "cores", "threads", "clocks", "versions", "commit"} <= set(record)
    assert main(["latency", *words]) == 2
    assert "name the keys" in " ".join(capsys.readouterr().err.split())


def test_a_runtime_that_refuses_one_network_is_skipped_for_it_unless_it_was_named(tmp_path: Path) -> None:
    """torch.ao takes no zero points of channels, which adaround has, and it is in the default set."""
    if reason := runtimes.why_not("torch_ao"):
        pytest.skip(reason)
    finished = Finished(tmp_path)
    feed = Calibration(images=64, batch=64)
    source = rebuilt(finished.recipe(Adaround(8, 8, iterations=2, batch=16, feed=feed)), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    x = torch.zeros(2, 3, 8, 8)
    networks = [
        Exported("float", "small", torch.nn.Flatten(), x, int8=False),
        Exported("key", "small adaround", network, x, int8=True),
    ]
    skipped: dict[str, str] = {}
    found = made(networks, ("torch_ao",), skipped, 2, 1, lambda words: None)
    assert [(one.runtime, one.network.key, one.precision) for one in found][:1] == [
        ("torch_ao", "float", "float32")
    ]
    assert "without a zero point, and layer" in skipped["torch_ao small adaround, int8"]
    with pytest.raises(SuiteError, match="without a zero point"):
        made(networks, ("torch_ao",), {}, 2, 1, lambda words: None, named=("torch_ao",))
    with pytest.raises(SuiteError, match="no runtime takes these networks: torch_ao small adaround, int8: "):
        made(networks[1:], ("torch_ao",), {}, 2, 1, lambda words: None)


def test_what_torch_ao_refuses_only_when_it_computes_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    if reason := runtimes.why_not("torch_ao"):
        pytest.skip(reason)
    finished = Finished(tmp_path)
    feed = Calibration(images=64, batch=64)
    source = rebuilt(finished.recipe(Mse(8, 12, feed=feed)), finished.folders)
    network, _ = integer_everywhere(source.model, source.calibration())
    wide = Exported("key", "wide inputs", network, torch.zeros(2, 3, 8, 8), int8=True)
    with pytest.raises(SuiteError, match="has more than 8 bits"):
        runtimes.engine(wide, "torch_ao", "int8", 2, 1)
