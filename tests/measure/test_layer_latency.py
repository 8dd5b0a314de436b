"""How long single layers take: each shape measured once, in integers and in float, and read by a budget of time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fakes.exported import Finished
from fakes.missing import missing
from torch import nn

from suite.cli.main import main
from suite.export import runtimes
from suite.measure.layer_latency import Shape, kernel, shapes
from suite.steps import LayerTimes
from suite.sweeps.stored import save_sweep


def test_the_shapes_are_those_the_layers_compute_on() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 6, (3, 1), 2, padding="valid", bias=False),
        nn.Conv2d(6, 6, 3, padding="same", groups=2, dilation=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )
    first, second, linear = shapes(network, torch.zeros(2, 4, 9, 9)).values()
    assert first == Shape(
        (2, 4, 9, 9), (6, 4, 3, 1),
        (("kernel_shape", (3, 1)), ("strides", (2, 2)), ("dilations", (1, 1)), ("pads", (0, 0, 0, 0)), ("group", 1)),
    )  # fmt: skip
    assert second.input == (2, 6, 4, 5) and second.weight == (6, 3, 3, 3)
    assert dict(second.attributes)["pads"] == (2, 2, 2, 2) and dict(second.attributes)["group"] == 2
    assert linear == Shape((2, 6), (10, 6))


def test_every_kernel_gives_what_the_layer_gives() -> None:
    if reason := runtimes.why_not("onnxruntime"):
        missing(reason)
    network = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, groups=2), nn.Flatten(), nn.Linear(6 * 16, 10))
    for name, shape in shapes(network, torch.zeros(3, 4, 8, 8)).items():
        expected = (3, 6, 4, 4) if name == "0" else (3, 10)
        for integers, dtype in ((True, "uint8"), (False, "float32")):
            (given,) = kernel(shape, integers, 1)()
            assert given.shape == expected and given.dtype == dtype


def test_the_command_measures_the_layers_of_a_network_and_a_budget_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := runtimes.why_not("onnxruntime"):
        missing(reason)
    finished = Finished(tmp_path)
    save_sweep(finished.folders.runs, "float", {}, [finished.start])
    words = ["--runs", str(finished.folders.runs), "--seconds", "0.001", "--batch", "1"]
    assert main(["latency", finished.start.key, "--layers", *words]) == 0
    said = capsys.readouterr().out
    (file,) = (finished.folders.runs / "layer-times").glob("*.json")
    assert str(file) in said and "conv1" in said and "x float32" in said
    record = json.loads(file.read_text())
    assert {"cpu_flags", "device", "clocks", "versions", "commit", "clock"} <= set(record)
    times = LayerTimes.read(file)
    for name in ("stem", "conv1", "conv2", "short", "linear"):
        assert times.milliseconds(name, 4, 4) > 0 and times.milliseconds(name, 16, 16) > 0
    assert main(["latency", finished.start.key, "0", "--layers", *words]) == 2
